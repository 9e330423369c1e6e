"""Are users hurting, and where? Up, fast, full, fresh, right, and the bottleneck, on one page."""

from __future__ import annotations

from deploy.dashboards.model import Dashboard, Panel, Query, Row, Step
from deploy.dashboards.queries import BAD, FULL, GOOD, RATE, WARN, or_zero, quantile, quantiles, rate
from deploy.rules.saturation import NAME as SATURATION
from deploy.rules.slo import SEARCHES_FAILED, series

_FAILED = SEARCHES_FAILED.replace("[$window]", RATE)
_PARTIAL = 'sum(rate(vitrine_gateway_coverage_ratio_bucket{le="0.99"}' + RATE + "))"
_ANSWERED = "sum(rate(vitrine_gateway_coverage_ratio_count" + RATE + "))"
_CALLERS_FAULT = (
    'sum(rate(grpc_server_handled_total{grpc_service="vitrine.v1.VisualSearch",'
    'grpc_code=~"INVALID_ARGUMENT|NOT_FOUND|FAILED_PRECONDITION|UNIMPLEMENTED|UNAUTHENTICATED|PERMISSION_DENIED"}'
    f"{RATE}))"
)
_DAYS = 86_400
_RECALL = (
    "sum{by}(increase(vitrine_indexer_canary_found_total[1h]))"
    " / sum{by}(increase(vitrine_indexer_canary_expected_total[1h]))"
)

_HURTING = Row(
    "Are users hurting?",
    (
        Panel(
            "Processes serving",
            "Share of all gateways, embedders and index shards that say they can do their work. Below 100 %: look at "
            "'Who serves' below, then at the runbook process-down.",
            "percentunit",
            (Query('sum(vitrine_serving) / count(up{job=~"vitrine-.+"})'),),
            "stat",
            width=3,
            height=4,
            steps=(Step(None, BAD), Step(0.999, GOOD)),
        ),
        Panel(
            "Answered in full, last hour",
            "Share of the searches that were answered; a degraded answer counts for the share of the shards behind it, "
            "callers' mistakes do not count. Objective: 99.9 %.",
            "percentunit",
            (Query(f"1 - {series('search_availability', '1h')}"),),
            "stat",
            width=3,
            height=4,
            steps=(Step(None, BAD), Step(0.99, WARN), Step(0.999, GOOD)),
            decimals=2,
        ),
        Panel(
            "Searches answered",
            "Searches, recognitions and recommendations a second, over gRPC and HTTP.",
            "reqps",
            (Query(_ANSWERED),),
            "stat",
            width=3,
            height=4,
        ),
        Panel(
            "Search time, p99",
            "99 % of the searches are answered faster. Objective: 99 % within 320 ms.",
            "s",
            (Query(quantile(0.99, "vitrine_gateway_answer_seconds", where='call="Search"')),),
            "stat",
            width=3,
            height=4,
            steps=(Step(None, GOOD), Step(0.16, WARN), Step(0.32, BAD)),
        ),
        Panel(
            "Write to searchable, p99, 1 h",
            "99 % of the last hour's accepted writes could be found sooner. Objective: 99 % within one second.",
            "s",
            (Query(quantile(0.99, "vitrine_indexer_freshness_seconds", window="[1h]")),),
            "stat",
            width=3,
            height=4,
            steps=(Step(None, GOOD), Step(0.25, WARN), Step(1, BAD)),
        ),
        Panel(
            "Right: recall@10, last hour",
            "Of the ten best products of the exact answer, the share that live answers held. Objective: 97 %.",
            "percentunit",
            (Query(_RECALL.format(by="")),),
            "stat",
            width=3,
            height=4,
            steps=(Step(None, BAD), Step(0.97, WARN), Step(0.99, GOOD)),
            decimals=1,
        ),
        Panel(
            "Fullest disk is full in",
            "At the pace of the last hour; a year where it does not fill.",
            "s",
            (
                Query(
                    "min(clamp_max(vitrine_indexer_disk_free_bytes"
                    f" / clamp_min(-deriv(vitrine_indexer_disk_free_bytes[1h]), 0.001), {365 * _DAYS}))"
                ),
            ),
            "stat",
            width=3,
            height=4,
            steps=(Step(None, BAD), Step(4 * _DAYS, WARN), Step(14 * _DAYS, GOOD)),
        ),
        Panel(
            "Bottleneck: busiest now",
            "What of all that searches and writes pass through is nearest to full, and where. It limits how much more "
            "can be served; at 100 % something waits or is refused.",
            "percentunit",
            (
                Query(
                    f'topk(1, {SATURATION}{{resource!~"disk|memory|file descriptors"}})', "{{resource}}, {{instance}}"
                ),
            ),
            "stat",
            width=3,
            height=4,
            steps=FULL,
        ),
    ),
)

_ANSWERS = Row(
    "How many, how fast, and where the time goes",
    (
        Panel(
            "Searches by what became of them",
            "In full; in part (a shard did not answer); failed by our fault; refused by the caller's own. Orange or "
            "red: users hurt.",
            "reqps",
            (
                Query(f"{_ANSWERED} - {_PARTIAL}", "in full"),
                Query(_PARTIAL, "in part"),
                Query(_FAILED, "failed"),
                Query(or_zero(_CALLERS_FAULT), "caller's mistake"),
            ),
            stacked=True,
            colours=(("in full", "green"), ("in part", "orange"), ("failed", "red"), ("caller's mistake", "blue")),
        ),
        Panel(
            "Time of a search",
            "From its arrival at the gateway to its answer. p99 is what the unluckiest in a hundred wait.",
            "s",
            quantiles("vitrine_gateway_answer_seconds", where='call="Search"'),
        ),
        Panel(
            "Mean time by stage",
            "Where the time of a search goes: queue, decode and model are inside the embedder, index is the wait for "
            "the shards. The widest band is what to make faster.",
            "s",
            (
                Query(
                    f'sum by (stage) (rate(vitrine_gateway_stage_seconds_sum{{stage!="embed"}}{RATE})) / '
                    f"scalar({_ANSWERED})",
                    "{{stage}}",
                ),
            ),
            stacked=True,
        ),
    ),
)

_GOOD = Row(
    "How complete, how fresh, how right",
    (
        Panel(
            "Shards behind an answer",
            "Mean share of the shards that answered. Below 100 % products are missing from answers.",
            "percentunit",
            (
                Query(
                    f"sum(rate(vitrine_gateway_coverage_ratio_sum{RATE})) / {_ANSWERED}",
                    "coverage",
                ),
            ),
            width=6,
            most=1.0,
        ),
        Panel(
            "Degraded, by reason",
            "Answers a second that are less than they could be, and why.",
            "reqps",
            (Query(or_zero(rate("vitrine_gateway_degraded_total", "reason"), "reason"), "{{reason}}"),),
            width=6,
        ),
        Panel(
            "Write to searchable",
            "From the acceptance of a write to its being found.",
            "s",
            quantiles("vitrine_indexer_freshness_seconds"),
            width=6,
        ),
        Panel(
            "Recall@10 by selectivity",
            "Share of the exact answer's best ten in live answers, by how much the filter leaves; over an hour.",
            "percentunit",
            (Query(_RECALL.format(by=" by (selectivity) "), "{{selectivity}}"),),
            width=6,
            least=0.8,
            most=1.0,
        ),
    ),
)

_FULL = Row(
    "How full: the bottleneck",
    (
        Panel(
            "Share in use, fullest process of each kind",
            "The line on top is the bottleneck. What is at 100 % makes others wait, or is refused.",
            "percentunit",
            (Query(f"max by (resource) ({SATURATION})", "{{resource}}"),),
            width=12,
            height=9,
            most=1.0,
        ),
        Panel(
            "Fullest now",
            "Resource and process, the fullest first.",
            "percentunit",
            (Query(f"topk(8, {SATURATION})", "{{resource}}, {{instance}}"),),
            "bars",
            width=6,
            height=9,
            steps=FULL,
            most=1.0,
        ),
        Panel(
            "Disk: free, and in four days",
            "Free bytes of each shard's disk, and what the last six hours' pace leaves in four days. 0: full before "
            "then.",
            "bytes",
            (
                Query("vitrine_indexer_disk_free_bytes", "{{instance}} free"),
                Query(
                    "clamp_min(predict_linear(vitrine_indexer_disk_free_bytes[6h], 4 * 86400), 0)",
                    "{{instance}} in four days",
                ),
            ),
            width=6,
            height=9,
        ),
    ),
)

_INSIDE = Row(
    "What is in it, and who serves",
    (
        Panel(
            "Products",
            "Live products by collection, over all shards.",
            "short",
            (Query("sum by (collection) (vitrine_indexer_products)", "{{collection}}"),),
            width=6,
        ),
        Panel(
            "Catalogue items in",
            "Items of catalogue jobs acknowledged a second, by status; OK is durable and searchable.",
            "ops",
            (Query(rate("vitrine_embedder_ingest_items_total", "code"), "{{code}}"),),
            width=6,
        ),
        Panel(
            "Photos through the model",
            "Images a second by class: interactive is shoppers, bulk is catalogue jobs.",
            "ops",
            (Query(rate("vitrine_embedder_images_total", "priority"), "{{priority}}"),),
            width=6,
        ),
        Panel(
            "Who serves",
            "Processes of each kind that are up and say they can do their work. Of index shards every one is needed.",
            "short",
            (
                Query(
                    'sum by (job) (vitrine_serving) or 0 * count by (job) (up{job=~"vitrine-.+"})',
                    "{{job}}",
                ),
            ),
            width=6,
        ),
    ),
)

OVERVIEW = Dashboard(
    "vitrine-overview",
    "Vitrine: overview",
    "Are users hurting, and where? Is it up, how fast, how full, how fresh, how right, and what is the bottleneck.",
    (_HURTING, _ANSWERS, _GOOD, _FULL, _INSIDE),
)
