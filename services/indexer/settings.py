"""Settings of the indexer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from services.runtime.settings import ServiceSettings

_CORES = len(os.sched_getaffinity(0))


class IndexerSettings(ServiceSettings):
    """What the indexer can be told; `VITRINE_INDEXER_...` in the environment, `[indexer]` in the TOML file."""

    section: ClassVar[str] = "indexer"

    port: int = Field(50060, ge=1, le=65535, description="gRPC port.")
    data_dir: Path | None = Field(
        None,
        description="Folder with everything this shard stores, used by one process at a time; unset: "
        ".vitrine/indexer-PORT under the working directory.",
    )
    segment_points: int = Field(
        16_384,
        ge=16,
        le=25_000,
        description="Points in a full block, and so in an HNSW segment at most. More: fewer graphs to walk, but a "
        "slower exact search of fresh points and a longer pause (under 60 ms at most, 256-d) when a segment loads.",
    )
    segment_megabytes: int = Field(
        32,
        ge=1,
        le=256,
        description="Size of a segment's graph file at most; lowers segment_points for long vectors, because loading "
        "pauses the process for about 1.3 ms a megabyte.",
    )
    group_commit_ms: float = Field(
        2.0,
        ge=0,
        le=1_000,
        description="Wait for more points before a commit. Longer: more points share one disk sync, acks come later.",
    )
    group_commit_points: int = Field(1_024, ge=1, le=65_536, description="Points that make a commit leave at once.")
    max_queued_points: int = Field(
        8_192,
        ge=1,
        le=1_000_000,
        description="Points of one collection waiting for a commit before writers are slowed by flow control.",
    )
    max_stream_points: int = Field(
        2_048, ge=1, le=1_000_000, description="Unacknowledged points of one Upsert stream before reading pauses."
    )
    search_threads: int = Field(
        0, ge=0, le=1_024, description="Searches, reads and scans that run at the same time; 0: one for each core."
    )
    build_threads: int = Field(
        0,
        ge=0,
        le=1_024,
        description="Threads of the builder process, at low priority; 0: half as many as cores. More: segments sooner, "
        "searches slower meanwhile.",
    )
    default_ef: int = Field(
        64,
        ge=8,
        le=10_000,
        description="HNSW beam width of searches that do not set `ef`. Wider: better recall, slower.",
    )
    default_m: int = Field(16, ge=4, le=64, description="HNSW links a node of collections that leave `hnsw.m` 0.")
    default_ef_construction: int = Field(
        200, ge=16, le=2_000, description="HNSW build beam of collections that leave `hnsw.ef_construction` 0."
    )
    max_collections: int = Field(64, ge=1, le=4_096, description="Collections of this shard at most.")

    @model_validator(mode="after")
    def _check(self) -> IndexerSettings:
        if self.max_stream_points > self.max_queued_points:
            raise ValueError(
                f"max_stream_points ({self.max_stream_points}) is over max_queued_points ({self.max_queued_points})"
            )
        return self

    @property
    def resolved_search_threads(self) -> int:
        """How many searches run at the same time."""
        return self.search_threads or _CORES

    @property
    def resolved_build_threads(self) -> int:
        """Threads of the builder process."""
        return self.build_threads or max(1, _CORES // 2)

    @property
    def resolved_data_dir(self) -> Path:
        """The data folder."""
        return self.data_dir or Path(".vitrine") / f"indexer-{self.port}"
