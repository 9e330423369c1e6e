"""Compaction, which is Milvus' own."""

from __future__ import annotations

import time

from services.indexer.milvus.collection import MilvusCollection
from services.indexer.milvus.schema import milvus_name
from vitrine.errors import DeadlineError
from vitrine.v1 import indexer_pb2

_POLL_SECONDS = 0.2


def compact(collection: MilvusCollection, *, deadline: float) -> indexer_pb2.CompactResponse:
    """Seals what is fresh, lets Milvus merge its segments and drop deleted rows, and waits; for a thread.

    Raises:
        DeadlineError: `deadline`, a `time.perf_counter()`, passed; Milvus goes on.
        VitrineError: Milvus failed.
    """
    milvus, name = collection.milvus, milvus_name(collection.name)
    milvus.flush(name)
    before = len(milvus.sealed_segments(name))
    job = milvus.compact(name)
    while not milvus.compacted(job):
        if time.perf_counter() + _POLL_SECONDS > deadline:
            raise DeadlineError("Milvus goes on compacting; its end was not awaited")
        time.sleep(_POLL_SECONDS)
    return indexer_pb2.CompactResponse(segments_before=before, segments_after=len(milvus.sealed_segments(name)))
