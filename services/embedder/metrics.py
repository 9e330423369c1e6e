"""The embedder's own metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24)

QUEUE_ITEMS = Gauge("vitrine_embedder_queue_items", "Images held, from arrival to vector.", ("model", "priority"))
QUEUE_BYTES = Gauge("vitrine_embedder_queue_bytes", "Bytes of the images held.", ("model", "priority"))
QUEUE_LIMIT_ITEMS = Gauge(
    "vitrine_embedder_queue_limit_items", "Images held at most; more are refused, or slowed.", ("model", "priority")
)
ADMISSION_SECONDS = Histogram(
    "vitrine_embedder_admission_seconds", "Wait for room in the queue.", ("priority",), buckets=_SECONDS
)
STAGE_SECONDS = Histogram(
    "vitrine_embedder_stage_seconds",
    "Time an image spent in one stage.",
    ("stage", "priority"),
    buckets=_SECONDS,
)
BATCH_IMAGES = Histogram(
    "vitrine_embedder_batch_images",
    "Images in a batch, padding not counted.",
    ("model",),
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024),
)
PADDING = Counter("vitrine_embedder_padding_images", "Empty places in batches.", ("model",))
BATCHES = Counter("vitrine_embedder_batches", "Batches run, by result.", ("model", "result"))
BUSY_LANES = Gauge("vitrine_embedder_busy_lanes", "Batches running now.", ("model",))
LANES = Gauge("vitrine_embedder_lanes", "Batches that may run side by side.", ("model",))
LANE_BUSY_SECONDS = Counter(
    "vitrine_embedder_lane_busy_seconds",
    "Time that lanes spent on batches, decoding in the lanes included: its rate divided by the lanes is how full they "
    "are.",
    ("model",),
)
HEALTHY = Gauge("vitrine_embedder_model_healthy", "1 while batches, or canaries when idle, go through.", ("model",))
CANARIES = Counter("vitrine_embedder_canaries", "Canary batches sent while idle, by result.", ("model", "result"))
IMAGES = Counter("vitrine_embedder_images", "Images answered, by status code.", ("priority", "code"))
DROPPED = Counter(
    "vitrine_embedder_dropped", "Images dropped before the model, by reason.", ("model", "priority", "reason")
)
SUBJECTS = Counter("vitrine_embedder_subjects", "Images whose subject was asked for, by result.", ("result",))
CACHE_LOOKUPS = Counter(
    "vitrine_embedder_cache_lookups", "Images looked up in the vector cache, by result.", ("result",)
)
CACHE_ENTRIES = Gauge("vitrine_embedder_cache_entries", "Vectors held in memory.")
CACHE_BYTES = Gauge("vitrine_embedder_cache_bytes", "Bytes of the vectors held in memory.")
CACHE_EVICTIONS = Counter("vitrine_embedder_cache_evictions", "Vectors that left memory for others.")
CACHE_INVALID = Counter(
    "vitrine_embedder_cache_invalid",
    "Vectors not served, or not kept, by whom they came from and what is wrong with them.",
    ("origin", "reason"),
)
CACHE_REDIS_UP = Gauge("vitrine_embedder_cache_redis_up", "1 while the shared cache answers.")
CACHE_REDIS_FAILURES = Counter(
    "vitrine_embedder_cache_redis_failures", "Connections lost, or not made, and commands refused.", ("reason",)
)
CACHE_REDIS_UNANSWERED = Counter(
    "vitrine_embedder_cache_redis_unanswered",
    "Reads and writes of the shared cache given up, by reason.",
    ("operation", "reason"),
)
INGESTED = Counter("vitrine_embedder_ingest_items", "Items answered by Ingest, by status code.", ("code",))
SHARD_BREAKS = Counter("vitrine_embedder_shard_breaks", "Upsert streams that broke with points pending.")
MODEL = Gauge(
    "vitrine_embedder_model_info",
    "1; what is served, and on what.",
    ("name", "version", "fingerprint", "provider", "device", "precision"),
)


def forget_model(model: str) -> None:
    """Removes the gauges of a model that is not served any more; what was counted stays counted."""
    for gauge in (LANES, BUSY_LANES):
        gauge.remove_by_labels({"model": model})
    for gauge in (QUEUE_ITEMS, QUEUE_BYTES, QUEUE_LIMIT_ITEMS):
        gauge.remove_by_labels({"model": model})
