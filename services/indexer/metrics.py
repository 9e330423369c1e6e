"""The indexer's own metrics."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

_COLLECTION = ("collection",)
_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

POINTS = Gauge("vitrine_indexer_points", "Live points.", _COLLECTION)
PRODUCTS = Gauge("vitrine_indexer_products", "Live products.", _COLLECTION)
TOMBSTONES = Gauge("vitrine_indexer_tombstones", "Keys that only remember a delete.", _COLLECTION)
SEGMENTS = Gauge("vitrine_indexer_segments", "HNSW segments being served.", _COLLECTION)
FRESH_POINTS = Gauge("vitrine_indexer_fresh_points", "Live points that no segment holds yet.", _COLLECTION)
GENERATION = Gauge("vitrine_indexer_generation", "Commits since the collection was created.", _COLLECTION)

UPDATES = Counter(
    "vitrine_indexer_attribute_updates",
    "Updates of attributes, by outcome: changed, stale, refused or failed.",
    ("outcome",),
)
UPSERTS = Counter(
    "vitrine_indexer_upserts", "Points received, by outcome: stored, stale, refused or failed.", ("outcome",)
)
DELETED = Counter("vitrine_indexer_deleted", "Points deleted.")
QUEUED_POINTS = Gauge("vitrine_indexer_queued_points", "Points waiting for their commit.", _COLLECTION)
QUEUED_POINTS_LIMIT = Gauge(
    "vitrine_indexer_queued_points_limit", "Points waiting for their commit at most; then writers are slowed."
)
COMMIT_SECONDS = Histogram(
    "vitrine_indexer_commit_seconds", "Time of one group commit, disk sync included.", buckets=_FAST
)
COMMIT_POINTS = Histogram(
    "vitrine_indexer_commit_points",
    "Points in one group commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
FRESHNESS_SECONDS = Histogram(
    "vitrine_indexer_freshness_seconds", "Time from the acceptance of a write to its being searchable.", buckets=_FAST
)

SEARCH_STAGE_SECONDS = Histogram(
    "vitrine_indexer_search_stage_seconds", "Time a search spent in one stage.", ("stage",), buckets=_FAST
)
SEARCH_THREADS = Gauge("vitrine_indexer_search_threads", "Searches, reads and scans that run at the same time.")
PLANS = Counter(
    "vitrine_indexer_plans",
    "How blocks and segments were searched: walk (graph), scan (all rows), and under a filter over_fetch (a wider "
    "walk, then the filter) or scan_matches.",
    ("plan",),
)
GRAPH_FALLBACKS = Counter(
    "vitrine_indexer_graph_fallbacks", "Segment searches answered exactly because the graph fell short."
)

TEXT_DOCUMENTS = Gauge("vitrine_indexer_text_documents", "Products that the text index holds.", _COLLECTION)
TEXT_LAG = Gauge(
    "vitrine_indexer_text_lag_generations",
    "Commits that the text index has not taken in yet; a text search waits for those before it.",
    _COLLECTION,
)
TEXT_SEARCH_SECONDS = Histogram(
    "vitrine_indexer_text_search_seconds",
    "Time a text search spent in one stage; `wait` is for the text index to be as new as the search.",
    ("stage",),
    buckets=_FAST,
)
TEXT_REBUILDS = Counter(
    "vitrine_indexer_text_rebuilds",
    "Times that a text index was compared with all stored points, by reason: missing (also a new collection), behind "
    "(the shard was killed), damaged, or overflow (too much changed at once).",
    ("reason",),
)
TEXT_FAILURES = Counter("vitrine_indexer_text_failures", "Jobs of the text index that failed and are tried again.")

CANARY_EXPECTED = Counter(
    "vitrine_indexer_canary_expected",
    "Products of the exact answers (10 best) to sampled live searches, by the share of points that the filter leaves.",
    ("collection", "selectivity"),
)
CANARY_FOUND = Counter(
    "vitrine_indexer_canary_found",
    "Those of them that the live answers held: divided by expected, recall@10.",
    ("collection", "selectivity"),
)

BUILD_SECONDS = Histogram(
    "vitrine_indexer_build_seconds",
    "Time to build and save one segment, by kind: seal (of full blocks), merge or purge (of dead rows).",
    ("kind",),
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000),
)
BUILDING_POINTS = Gauge("vitrine_indexer_building_points", "Points of the segment being built; 0: none is.")
BUILT_POINTS = Gauge("vitrine_indexer_built_points", "Points of the segment being built that are in its graph so far.")
DEAD_ROWS = Gauge("vitrine_indexer_dead_rows", "Rows of segments whose point is gone.", _COLLECTION)
BUILD_FAILURES = Counter("vitrine_indexer_build_failures", "Segment builds that failed and are tried again.")
BUILDER_STOPPED_SECONDS = Counter(
    "vitrine_indexer_builder_stopped_seconds", "Time that the builder stood still because searches needed its core."
)
BUILDS_WAITING = Gauge("vitrine_indexer_builds_waiting", "Full blocks that no segment replaces yet.", _COLLECTION)
SEGMENT_LOAD_SECONDS = Histogram("vitrine_indexer_segment_load_seconds", "Time to load one segment.", buckets=_FAST)
DAMAGED_SEGMENTS = Counter("vitrine_indexer_damaged_segments", "Segments set aside and rebuilt.")
SNAPSHOT_SECONDS = Histogram(
    "vitrine_indexer_snapshot_seconds",
    "Time to take one snapshot, those that failed not counted.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000),
)

_BY_COLLECTION = (
    POINTS,
    PRODUCTS,
    TOMBSTONES,
    SEGMENTS,
    FRESH_POINTS,
    GENERATION,
    QUEUED_POINTS,
    DEAD_ROWS,
    BUILDS_WAITING,
    TEXT_DOCUMENTS,
    TEXT_LAG,
)


def forget(collection: str) -> None:
    """Stops exporting the figures of a dropped collection."""
    for gauge in _BY_COLLECTION:
        with suppress(KeyError):
            gauge.remove(collection)


@cache
def search_stage(stage: str) -> Histogram:
    """Returns the time of one stage of a search; finding it by its label would cost more than an observation."""
    return SEARCH_STAGE_SECONDS.labels(stage)


@cache
def plan(name: str) -> Counter:
    """Returns the count of one plan."""
    return PLANS.labels(name)
