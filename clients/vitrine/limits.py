"""The limits on search requests that the contracts state, for the gateway and for the services behind it alike."""

from __future__ import annotations

MAX_K = 1_000
"""Products wanted."""
MAX_EF = 10_000
"""HNSW beam width."""
MAX_TEXT_BYTES = 1_024
"""Text of a query, UTF-8."""
MAX_TAGS = 100
"""Class tags of one image."""
