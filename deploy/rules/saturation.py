"""How full everything is that can be full, as one series: 1 is full, and the fullest is the bottleneck."""

from __future__ import annotations

from deploy.rules.model import Group, Recording

NAME = "vitrine:saturation:ratio"
_OURS = 'job=~"vitrine-.+"'

RESOURCES: dict[str, str] = {
    "cpu": f"rate(process_cpu_seconds_total{{{_OURS}}}[1m]) / on (job, instance) vitrine_cpu_cores",
    "memory": f"process_resident_memory_bytes{{{_OURS}}} / on (job, instance) vitrine_memory_limit_bytes",
    "file descriptors": f"process_open_fds{{{_OURS}}} / on (job, instance) process_max_fds{{{_OURS}}}",
    "calls in flight": "vitrine_rpcs_in_flight / vitrine_rpcs_in_flight_limit",
    # All of the gateway's own code runs on one event loop.
    "gateway core": 'clamp_max(rate(process_cpu_seconds_total{job="vitrine-gateway"}[1m]), 1)',
    "embedder lanes": "max by (job, instance) (rate(vitrine_embedder_lane_busy_seconds_total[1m])"
    " / on (job, instance, model) vitrine_embedder_lanes)",
    "embedder queue, interactive": "max by (job, instance) ("
    'vitrine_embedder_queue_items{priority="interactive"} / vitrine_embedder_queue_limit_items)',
    "embedder queue, bulk": 'max by (job, instance) (vitrine_embedder_queue_items{priority="bulk"}'
    " / vitrine_embedder_queue_limit_items)",
    "index search threads": "sum by (job, instance) "
    '(rate(vitrine_indexer_search_stage_seconds_sum{stage!~"queue|wait_generation"}[1m]))'
    " / on (job, instance) vitrine_indexer_search_threads",
    "index writer": "sum by (job, instance) (rate(vitrine_indexer_commit_seconds_sum[1m]))"
    " / on (job, instance) count by (job, instance) (vitrine_indexer_generation)",
    "index write queue": "max by (job, instance) (vitrine_indexer_queued_points)"
    " / on (job, instance) vitrine_indexer_queued_points_limit",
    "disk": "1 - vitrine_indexer_disk_free_bytes / vitrine_indexer_disk_size_bytes",
}
"""PromQL of the share in use, by resource; one series for each process that has the resource."""


def recordings() -> Group:
    """Returns the rules that record it."""
    return Group(
        "vitrine-saturation",
        tuple(Recording(NAME, expr, {"resource": resource}) for resource, expr in RESOURCES.items()),
    )
