"""Unary calls of a channel on streams, for whoever makes many (docs/decisions/0027).

In Python an RPC costs its two sides several times what a message on a stream costs, and calls that are made at the same
time share a message. Whoever makes them sees no difference; to a server that takes none on a stream, and where a
request or a response is large, they are RPCs of their own.
"""
