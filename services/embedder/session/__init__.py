"""ONNX Runtime, and the only package that knows it."""

from services.embedder.session.providers import (
    Provider,
    chosen_provider,
    cpu_provider,
    cuda_provider,
    tensorrt_provider,
)
from services.embedder.session.session import Outputs, Session

__all__ = [
    "Outputs",
    "Provider",
    "Session",
    "chosen_provider",
    "cpu_provider",
    "cuda_provider",
    "tensorrt_provider",
]
