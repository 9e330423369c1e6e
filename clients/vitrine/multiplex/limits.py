"""How much goes on a stream of calls; clients and servers keep to the same."""

from __future__ import annotations

from typing import Final

MAX_CALL_BYTES: Final = 256 * 2**10
"""Of a request that may come with others: a larger one would keep them waiting."""
MAX_ANSWER_BYTES: Final = 2**20
"""Of a response that may come with others."""
MESSAGE_BYTES: Final = 2**19
"""Once a message holds so much, the rest follows in the next: with one call more it is still less than any server's
limit of a message."""
