"""What goes into the catalogue: how much, how fast it can be found, what fails, and what slows it down."""

from __future__ import annotations

from deploy.dashboards.model import Dashboard, Panel, Query, Row
from deploy.dashboards.queries import RATE, or_zero, quantile, quantiles, rate
from deploy.rules.saturation import NAME as SATURATION

INGESTION = Dashboard(
    "vitrine-ingestion",
    "Vitrine: ingestion",
    "Catalogue jobs from the picture to the searchable point.",
    (
        Row(
            "In",
            (
                Panel(
                    "Items by status",
                    "Acknowledged a second; OK is durable and searchable. Jobs list what failed, and why.",
                    "ops",
                    (Query(rate("vitrine_embedder_ingest_items_total", "code"), "{{code}}"),),
                ),
                Panel(
                    "Points by outcome",
                    "At the shards: stored, stale (something newer was there), refused, failed.",
                    "ops",
                    (Query(rate("vitrine_indexer_upserts_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Attributes changed, points deleted",
                    "Updates a second by outcome, and deletes.",
                    "ops",
                    (
                        Query(rate("vitrine_indexer_attribute_updates_total", "outcome"), "update {{outcome}}"),
                        Query(rate("vitrine_indexer_deleted_total"), "deleted"),
                    ),
                ),
                Panel(
                    "Ingestions under way",
                    "Streams of catalogue jobs that have begun and not ended.",
                    "short",
                    (
                        Query(
                            'sum(grpc_server_started_total{grpc_service="vitrine.v1.Embedder",grpc_method="Ingest"}) - '
                            '(sum(grpc_server_handled_total{grpc_service="vitrine.v1.Embedder",grpc_method="Ingest"})'
                            " or vector(0))",
                            "streams",
                        ),
                    ),
                ),
                Panel(
                    "Products",
                    "Live products by collection.",
                    "short",
                    (Query("sum by (collection) (vitrine_indexer_products)", "{{collection}}"),),
                ),
                Panel(
                    "Upsert streams that broke",
                    "Between embedder and shards, with points pending; they are sent again.",
                    "ops",
                    (Query(rate("vitrine_embedder_shard_breaks_total"), "breaks"),),
                ),
            ),
        ),
        Row(
            "How fast",
            (
                Panel(
                    "Write to searchable",
                    "From the acceptance of a write at a shard to its being found. Objective: 99 % within a second.",
                    "s",
                    quantiles("vitrine_indexer_freshness_seconds"),
                ),
                Panel(
                    "Commits",
                    "Time of a group commit, disk sync included.",
                    "s",
                    quantiles("vitrine_indexer_commit_seconds"),
                ),
                Panel(
                    "Points in a commit, mean",
                    "More points share one disk sync when more come in.",
                    "short",
                    (
                        Query(
                            f"{rate('vitrine_indexer_commit_points_sum', 'instance')} / "
                            f"{rate('vitrine_indexer_commit_points_count', 'instance')}",
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "What slows it down",
            (
                Panel(
                    "Wait for room at the embedder, p99",
                    "Bulk work is slowed while the queue is full: that is as it should be.",
                    "s",
                    (Query(quantile(0.99, "vitrine_embedder_admission_seconds", where='priority="bulk"'), "p99"),),
                    width=6,
                ),
                Panel(
                    "Share in use",
                    "Of what ingestion fills. The line on top is the bottleneck.",
                    "percentunit",
                    (
                        Query(
                            f'max by (resource) ({SATURATION}{{resource=~"cpu|embedder lanes|embedder queue, bulk|'
                            'index writer|index write queue|disk"})',
                            "{{resource}}",
                        ),
                    ),
                    width=6,
                    most=1.0,
                ),
                Panel(
                    "Points waiting for a commit",
                    "By shard, and the most that wait.",
                    "short",
                    (
                        Query("sum by (instance) (vitrine_indexer_queued_points)", "{{instance}}"),
                        Query("vitrine_indexer_queued_points_limit", "{{instance}} at most"),
                    ),
                    width=6,
                ),
                Panel(
                    "Bulk images dropped",
                    "By reason; what is dropped was not acknowledged, and is sent again.",
                    "ops",
                    (
                        Query(
                            or_zero(rate("vitrine_embedder_dropped_total", "reason", 'priority="bulk"'), "reason"),
                            "{{reason}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Blocks waiting to become segments",
                    "They are searchable, but searched exactly: if they pile up, searches get slower.",
                    "short",
                    (Query("sum by (instance) (vitrine_indexer_builds_waiting)", "{{instance}}"),),
                    width=12,
                ),
                Panel(
                    "Time spent building",
                    "Seconds of building in a second, by kind; at 1 the builder does nothing else.",
                    "short",
                    (Query(f"sum by (kind) (rate(vitrine_indexer_build_seconds_sum{RATE}))", "{{kind}}"),),
                    width=12,
                ),
            ),
        ),
    ),
)
