"""Unary calls that come many on one stream: each is served as one that comes by an RPC of its own.

In Python an RPC costs its two sides several times what a message on a stream costs (docs/decisions/0027).
"""
