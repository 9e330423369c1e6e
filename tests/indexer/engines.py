"""The contract is the same on every engine, and so are its tests."""

import pytest

both_engines = pytest.mark.parametrize("engine", ["embedded", pytest.param("milvus", marks=pytest.mark.milvus)])
"""Runs a test that uses `shard` on each engine."""

milvus_only = pytest.mark.parametrize("engine", [pytest.param("milvus", marks=pytest.mark.milvus)])
"""Runs a test that uses `shard` on Milvus."""
