"""Builds the ONNX embedders from published weights and describes every embedder by a model card.

A leaf package: it imports nothing else of Vitrine, and services/embedder reads its cards.
"""
