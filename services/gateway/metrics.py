"""The gateway's own metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 5.0)

ANSWER_SECONDS = Histogram(
    "vitrine_gateway_answer_seconds",
    "Time until an answer was ready, by RPC, whether asked over gRPC or HTTP; calls that failed are not in it.",
    ("call",),
    buckets=_SECONDS,
)
STAGE_SECONDS = Histogram(
    "vitrine_gateway_stage_seconds", "Time an answer spent in one stage.", ("stage",), buckets=_SECONDS
)
SEARCHES = Counter("vitrine_gateway_searches", "Searches answered, by kind of query.", ("query",))
STAGES_SKIPPED = Counter(
    "vitrine_gateway_stages_skipped",
    "Stages left out of an answer (of the ranking, `images`, `encode_text`), by stage and reason.",
    ("stage", "reason"),
)
DEGRADED = Counter("vitrine_gateway_degraded", "Answers that are less than they could be, by reason.", ("reason",))
COVERAGE = Histogram(
    "vitrine_gateway_coverage_ratio",
    "Share of the shards that stand behind an answer, by RPC; its count is the number of answers.",
    ("call",),
    buckets=(0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0),
)
RESULTS = Histogram(
    "vitrine_gateway_results", "Products in an answer.", buckets=(0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
)
FEEDBACK = Counter("vitrine_gateway_feedback", "Feedback stored, by action.", ("action",))
FEEDBACK_DROPPED = Counter(
    "vitrine_gateway_feedback_dropped", "Answers and feedback that could not be kept, by reason.", ("reason",)
)
FEEDBACK_EXPIRED = Counter("vitrine_gateway_feedback_expired", "Answers deleted because their time was up.")
FEEDBACK_QUERIES = Gauge("vitrine_gateway_feedback_queries", "Answers kept for feedback, counted every ten minutes.")
RECOGNITIONS = Counter(
    "vitrine_gateway_recognitions",
    "Images looked at by Recognize, by result (product or none) and whether a calibration was there.",
    ("result", "calibrated"),
)
RECOGNITION_CONFIDENCE = Histogram(
    "vitrine_gateway_recognition_confidence",
    "Confidence in the best candidate of Recognize.",
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
HTTP_REQUESTS = Counter(
    "vitrine_http_requests", "HTTP requests answered, by route, method and status.", ("route", "method", "status")
)
HTTP_SECONDS = Histogram(
    "vitrine_http_request_seconds",
    "Time from the head of an HTTP request to the end of its answer, by route.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 30.0),
)
SHARD_CALLS = Counter(
    "vitrine_gateway_shard_calls", "Shards asked (or skipped) by a search, by outcome.", ("shard", "outcome")
)
SHARD_RETRIES = Counter("vitrine_gateway_shard_retries", "Calls to a shard that were made a second time.", ("shard",))
BREAKER_STATE = Gauge(
    "vitrine_gateway_breaker_state", "Whether a shard is asked: 0 it is, 1 on trial, 2 it is not.", ("shard",)
)
BREAKER_TRANSITIONS = Counter(
    "vitrine_gateway_breaker_transitions", "Changes of a shard's circuit breaker, by its new state.", ("shard", "state")
)
