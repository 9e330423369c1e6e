"""Settings of the indexer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from services.indexer import huge_pages
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
        le=100_000,
        description="Points in a full block, and so in the smallest HNSW segments; fewer where their vectors exceed "
        "32 MiB. More: segments are built less often, but fresh points are searched exactly: .3 ms for 16,384 x 256, "
        "and 1.1 ms until a first segment is built.",
    )
    seal_idle_seconds: float = Field(
        5.0,
        ge=0,
        le=86_400,
        description="A block that is not full becomes a segment all the same when nothing was written to it for so "
        "long, if a graph pays (32 x default_ef points); 0: never. Shorter: the end of an ingestion is searched fast "
        "sooner; slow writers make more small segments, to be merged later.",
    )
    segment_megabytes: int = Field(
        0,
        ge=0,
        le=4_096,
        description="Size of a segment's graph at most (four times that where vectors can no longer be reduced); "
        "merging stops there. More: fewer graphs to walk, so faster searches, but a longer pause when a segment "
        "loads: 0.2 to 0.4 ms a megabyte with huge pages, 0.8 ms without, more where a virtual machine must "
        "first get the memory from its host. 0: 160 with huge pages, 64 without. (The indexer asks for huge "
        "pages where GLIBC_TUNABLES is not set.)",
    )
    max_segment_points: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Points in a segment at most, where segment_megabytes allows more; 0: no such limit.",
    )
    reduce_vectors: bool = Field(
        True,
        description="Build graphs over the vectors' strongest principal axes, as few as find the same neighbours (the "
        "builder measures it on each segment; whole vectors where two fifths of the axes are not enough), and"
        " score what a walk finds with the whole vectors. For segments built from now on. Off: walks read all"
        " of every vector, and take two to three times as long for 784 dimensions, and graphs as much more "
        "memory.",
    )
    purge_dead_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Dead rows, as a share of a segment's rows, above which it is built anew. Less: memory returns and "
        "searches recover sooner after deletes, for more building.",
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
    canary_seconds: float = Field(
        10.0,
        ge=0,
        description="Answer a live search exactly as well, at most so often, and count what it missed; 0: never. "
        "Each costs an exact search: about 16 ms of one core for a million x 256.",
    )
    text_index: bool = Field(
        True,
        description="Keep a full-text index of the products' words for SearchText, fed by a process of its own at a "
        "low priority: some 46 us of CPU time a point, beside 130 us of the shard. Off: no such process, no such file, "
        "and SearchText answers UNIMPLEMENTED.",
    )
    text_job_seconds: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="How long that process may be at one piece of work before it is taken to hang and started anew. "
        "The longest is checking a whole index at the start.",
    )
    max_collections: int = Field(64, ge=1, le=4_096, description="Collections of this shard at most.")
    engine: Literal["embedded", "milvus"] = Field(
        "embedded",
        description="embedded: points and graphs on this machine, in data_dir. milvus: in a Milvus cluster, for "
        "catalogues and availability beyond one machine, at a slower write (deploy/milvus.md). Nothing moves from one "
        "to the other: ingest again.",
    )
    milvus_uri: str = Field("http://127.0.0.1:19530", description="Where Milvus is; https:// for TLS.")
    milvus_token_file: Path | None = Field(
        None, description="File with Milvus' token, or user:password; unset: Milvus asks for none."
    )
    milvus_ca_file: Path | None = Field(
        None, description="Certificate authority of Milvus' TLS certificate, PEM; unset: those of the system."
    )
    milvus_database: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,254})?$",
        description="Database of Milvus, created where it is missing. Each shard needs one of its own; empty: "
        "vitrine_PORT.",
    )
    milvus_channels: int = Field(
        1,
        ge=1,
        le=16,
        description="Milvus' write channels (its shards) of a collection. More: a collection is written by several of "
        "its data nodes.",
    )
    milvus_calls: int = Field(
        32,
        ge=1,
        le=1_024,
        description="Searches, reads and scans that wait for Milvus at the same time, where search_threads is 0.",
    )
    milvus_timeout_seconds: float = Field(
        30.0, gt=0, le=3_600, description="Longest wait for an answer of Milvus, beside the caller's own deadline."
    )
    milvus_flush: bool = Field(
        False,
        description="Flush to the object store before a write is acknowledged: 0.5 to 3 s for each commit, and small "
        "segments. Needed only where Milvus' log is not durable by itself (deploy/milvus.md).",
    )

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
    def searches_beside_builder(self) -> int:
        """Searches that have a core each beside the builder and the event loop."""
        return max(0, _CORES - self.resolved_build_threads - 1)

    @property
    def resolved_segment_megabytes(self) -> int:
        """Size of a segment's graph at most, MiB."""
        return self.segment_megabytes or (160 if huge_pages.in_use() else 64)

    @property
    def resolved_milvus_database(self) -> str:
        """The database of Milvus."""
        return self.milvus_database or f"vitrine_{self.port}"

    @property
    def resolved_data_dir(self) -> Path:
        """The data folder."""
        return self.data_dir or Path(".vitrine") / f"indexer-{self.port}"
