"""One dashboard for each service: what it does, how long that takes, what it refuses, and how full it is."""

from __future__ import annotations

from deploy.dashboards.model import Dashboard, Panel, Query, Row
from deploy.dashboards.queries import RATE, or_zero, quantile, quantiles, rate
from deploy.rules.saturation import NAME as SATURATION

_ME = 'instance=~"$instance"'
_NO_GPU = "measured only where the embedder runs on a GPU"
_NO_REDIS = "counted only where a shared cache is set (cache_redis_url)"


def _calls(job: str, package: str) -> Row:
    where = f'grpc_service="{package}",{_ME}'
    return Row(
        "Calls",
        (
            Panel(
                "Calls by method",
                "Calls that ended a second, by method.",
                "reqps",
                (Query(rate("grpc_server_handled_total", "grpc_method", where), "{{grpc_method}}"),),
                width=6,
            ),
            Panel(
                "Calls that were not OK",
                "By method and status code.",
                "reqps",
                (
                    Query(
                        or_zero(
                            rate("grpc_server_handled_total", "grpc_method, grpc_code", f'{where},grpc_code!="OK"'),
                            "grpc_method",
                        ),
                        "{{grpc_method}} {{grpc_code}}",
                    ),
                ),
                width=6,
            ),
            Panel(
                "Time of a call, p99",
                "99 % of the calls of a method end sooner; a stream lasts as long as its caller wants.",
                "s",
                (
                    Query(
                        quantile(0.99, "grpc_server_handling_seconds", "grpc_method", f'{where},grpc_type="unary"'),
                        "{{grpc_method}}",
                    ),
                ),
                width=6,
            ),
            Panel(
                "In flight, and refused",
                "Calls being served, the most that are, and calls refused before their work began: because there were "
                "too many, or because of who made them.",
                "short",
                (
                    Query(f'vitrine_rpcs_in_flight{{job="{job}",{_ME}}}', "{{instance}}"),
                    Query(f'vitrine_rpcs_in_flight_limit{{job="{job}",{_ME}}}', "{{instance}} at most"),
                    Query(or_zero(rate("vitrine_rpcs_shed_total", where=f'job="{job}",{_ME}')), "refused a second"),
                    Query(
                        or_zero(rate("vitrine_auth_refusals_total", "reason", f'job="{job}",{_ME}'), "reason"),
                        "not let in a second: {{reason}}",
                    ),
                ),
                width=6,
            ),
        ),
    )


def _process(job: str) -> Row:
    me = f'job="{job}",{_ME}'
    return Row(
        "Process",
        (
            Panel(
                "Share in use",
                "How full everything is that this service can fill; 100 % is full.",
                "percentunit",
                (Query(f"max by (resource) ({SATURATION}{{{me}}})", "{{resource}}"),),
                width=6,
                most=1.0,
            ),
            Panel(
                "Processor",
                "Cores in use, and those that it may use.",
                "short",
                (
                    Query(f"rate(process_cpu_seconds_total{{{me}}}{RATE})", "{{instance}}"),
                    Query(f"vitrine_cpu_cores{{{me}}}", "{{instance}} at most"),
                ),
                width=6,
            ),
            Panel(
                "Memory",
                "Resident memory.",
                "bytes",
                (Query(f"process_resident_memory_bytes{{{me}}}", "{{instance}}"),),
                width=6,
            ),
            Panel(
                "Event loop: how late it wakes",
                "Above some milliseconds something runs on it that should not, or the machine is short of processor "
                "time.",
                "s",
                (Query(quantile(0.99, "vitrine_event_loop_lag_seconds", "instance", me), "{{instance}} p99"),),
                width=6,
            ),
            Panel(
                "Version",
                "What runs where; more than one line in the middle of a rollout is as it should be.",
                "short",
                (Query(f"sum by (version, python) (vitrine_build_info{{{me}}})", "{{version}} on Python {{python}}"),),
                width=6,
            ),
            Panel(
                "Up for",
                "Since the start of the process.",
                "s",
                (Query(f"time() - process_start_time_seconds{{{me}}}", "{{instance}}"),),
                width=6,
            ),
            Panel(
                "Certificate expires in",
                "Of the certificate in use, where there is TLS. Runbook: certificate-expires.",
                "s",
                (
                    Query(
                        f"(vitrine_tls_certificate_expires_timestamp_seconds{{{me}}} > 0) - time()",
                        "{{instance}}",
                        "there is a certificate only with TLS",
                    ),
                ),
                width=6,
            ),
            Panel(
                "Open files",
                "File descriptors in use.",
                "short",
                (Query(f"process_open_fds{{{me}}}", "{{instance}}"),),
                width=6,
            ),
            Panel(
                "Settings and secrets read again, spans sent",
                "Settings after SIGHUP, certificates (tls) and identities (auth) when they change, spans of traces "
                "given to the collector: by result.",
                "ops",
                (
                    Query(
                        or_zero(rate("vitrine_settings_reloads_total", "result", me), "result"), "settings {{result}}"
                    ),
                    Query(
                        or_zero(rate("vitrine_secret_reloads_total", "secret, result", me), "secret"),
                        "{{secret}} {{result}}",
                    ),
                    Query(or_zero(rate("vitrine_spans_total", "result", me), "result"), "spans {{result}}"),
                ),
                width=6,
            ),
        ),
    )


GATEWAY = Dashboard(
    "vitrine-gateway",
    "Vitrine: gateway",
    "Searches as callers see them, shards as the gateway sees them.",
    (
        Row(
            "Answers",
            (
                Panel(
                    "Searches by kind of query",
                    "What callers search by.",
                    "reqps",
                    (Query(rate("vitrine_gateway_searches_total", "query", _ME), "{{query}}"),),
                ),
                Panel(
                    "Time of an answer",
                    "Of every RPC that ranks products, over gRPC and HTTP.",
                    "s",
                    quantiles("vitrine_gateway_answer_seconds", "call", _ME, "{{call}}"),
                ),
                Panel(
                    "Time by stage, p99",
                    "99 % of the answers spend less in a stage; embed contains queue, decode and model.",
                    "s",
                    (Query(quantile(0.99, "vitrine_gateway_stage_seconds", "stage", _ME), "{{stage}}"),),
                ),
                Panel(
                    "Products in an answer",
                    "Median, and the fullest percent of the answers.",
                    "short",
                    (
                        Query(quantile(0.5, "vitrine_gateway_results", where=_ME), "p50"),
                        Query(quantile(0.99, "vitrine_gateway_results", where=_ME), "p99"),
                    ),
                ),
                Panel(
                    "Degraded, by reason",
                    "Answers a second that are less than they could be.",
                    "reqps",
                    (Query(or_zero(rate("vitrine_gateway_degraded_total", "reason", _ME), "reason"), "{{reason}}"),),
                ),
                Panel(
                    "Ranking stages left out",
                    "By stage and reason: late (its time was up) or failed.",
                    "ops",
                    (
                        Query(
                            or_zero(rate("vitrine_gateway_stages_skipped_total", "stage, reason", _ME), "stage"),
                            "{{stage}} {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Shards, as the gateway sees them",
            (
                Panel(
                    "Shard calls by outcome",
                    "Every shard is asked by every search; skipped: its breaker was open.",
                    "ops",
                    (Query(rate("vitrine_gateway_shard_calls_total", "shard, outcome", _ME), "{{shard}} {{outcome}}"),),
                ),
                Panel(
                    "Circuit breakers",
                    "0: the shard is asked, 1: on trial, 2: it is not asked. Runbook: breaker-open.",
                    "short",
                    (Query(f"max by (shard) (vitrine_gateway_breaker_state{{{_ME}}})", "shard {{shard}}"),),
                    most=2.0,
                ),
                Panel(
                    "Second tries, breaker changes",
                    "Calls to a shard made a second time, and changes of its breaker, by new state.",
                    "ops",
                    (
                        Query(
                            or_zero(rate("vitrine_gateway_shard_retries_total", "shard", _ME), "shard"),
                            "retry {{shard}}",
                        ),
                        Query(
                            or_zero(rate("vitrine_gateway_breaker_transitions_total", "shard, state", _ME), "shard"),
                            "{{shard}} {{state}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Feedback",
            (
                Panel(
                    "Feedback by action",
                    "What shoppers did with results: views, clicks, purchases, rejections. Kept only where data_dir is "
                    "set.",
                    "ops",
                    (Query(or_zero(rate("vitrine_gateway_feedback_total", "action", _ME), "action"), "{{action}}"),),
                ),
                Panel(
                    "Answers kept for feedback",
                    "Counted every ten minutes; they expire by themselves.",
                    "short",
                    (Query(f"sum(vitrine_gateway_feedback_queries{{{_ME}}})", "kept"),),
                ),
                Panel(
                    "Not kept, expired",
                    "Answers and feedback that could not be kept, by reason, and answers whose time was up.",
                    "ops",
                    (
                        Query(
                            or_zero(rate("vitrine_gateway_feedback_dropped_total", "reason", _ME), "reason"),
                            "{{reason}}",
                        ),
                        Query(rate("vitrine_gateway_feedback_expired_total", where=_ME), "expired"),
                    ),
                ),
            ),
        ),
        Row(
            "HTTP",
            (
                Panel(
                    "Requests by route and status",
                    "Of the JSON API and the page.",
                    "reqps",
                    (Query(rate("vitrine_http_requests_total", "route, status", _ME), "{{route}} {{status}}"),),
                    width=12,
                ),
                Panel(
                    "Time by route, p99",
                    "From the head of a request to the end of its answer.",
                    "s",
                    (Query(quantile(0.99, "vitrine_http_request_seconds", "route", _ME), "{{route}}"),),
                    width=12,
                ),
            ),
        ),
        _calls("vitrine-gateway", "vitrine.v1.VisualSearch"),
        _process("vitrine-gateway"),
    ),
    "vitrine-gateway",
)

EMBEDDER = Dashboard(
    "vitrine-embedder",
    "Vitrine: embedder",
    "Images in, vectors out: queues, batches, drops, cache, GPU.",
    (
        Row(
            "Images",
            (
                Panel(
                    "Images by class and status",
                    "Answered a second.",
                    "ops",
                    (Query(rate("vitrine_embedder_images_total", "priority, code", _ME), "{{priority}} {{code}}"),),
                ),
                Panel(
                    "Time by stage, interactive, p99",
                    "queue: all waiting after admission; decode; model: the batch it was in.",
                    "s",
                    (
                        Query(
                            quantile(0.99, "vitrine_embedder_stage_seconds", "stage", f'priority="interactive",{_ME}'),
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Time by stage, bulk, p99",
                    "The same of catalogue jobs, and their wait for room in the queue.",
                    "s",
                    (
                        Query(
                            quantile(0.99, "vitrine_embedder_stage_seconds", "stage", f'priority="bulk",{_ME}'),
                            "{{stage}}",
                        ),
                        Query(
                            quantile(0.99, "vitrine_embedder_admission_seconds", where=f'priority="bulk",{_ME}'),
                            "admission",
                        ),
                    ),
                ),
                Panel(
                    "Images held",
                    "From arrival to vector, by class, and the most that are held.",
                    "short",
                    (
                        Query(f"sum by (priority) (vitrine_embedder_queue_items{{{_ME}}})", "{{priority}}"),
                        Query(
                            f"sum by (priority) (vitrine_embedder_queue_limit_items{{{_ME}}})", "{{priority}} at most"
                        ),
                    ),
                ),
                Panel(
                    "Bytes held",
                    "Of the images held, by class.",
                    "bytes",
                    (Query(f"sum by (priority) (vitrine_embedder_queue_bytes{{{_ME}}})", "{{priority}}"),),
                ),
                Panel(
                    "Dropped before the model",
                    "By class and reason: cancelled and expired (nobody waits any more), queue_full, wait_too_long.",
                    "ops",
                    (
                        Query(
                            or_zero(rate("vitrine_embedder_dropped_total", "priority, reason", _ME), "priority"),
                            "{{priority}} {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "The model",
            (
                Panel(
                    "Lanes in use",
                    "Share of the time in which lanes work on batches. At 100 % the model is the bottleneck.",
                    "percentunit",
                    (
                        Query(
                            f"sum by (instance, model) (rate(vitrine_embedder_lane_busy_seconds_total{{{_ME}}}{RATE}))"
                            f" / sum by (instance, model) (vitrine_embedder_lanes{{{_ME}}})",
                            "{{instance}} {{model}}",
                        ),
                    ),
                    width=6,
                    most=1.0,
                ),
                Panel(
                    "Images in a batch, mean",
                    "Grows with the load: what queued while the device was busy leaves together.",
                    "short",
                    (
                        Query(
                            f"{rate('vitrine_embedder_batch_images_sum', 'model', _ME)} / "
                            f"{rate('vitrine_embedder_batch_images_count', 'model', _ME)}",
                            "{{model}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Batches by result, and empty places",
                    "Batches a second; empty places of padded ones a second.",
                    "ops",
                    (
                        Query(rate("vitrine_embedder_batches_total", "result", _ME), "{{result}}"),
                        Query(rate("vitrine_embedder_padding_images_total", where=_ME), "empty places"),
                    ),
                    width=6,
                ),
                Panel(
                    "Model answers",
                    "1 while batches, or canaries when idle, go through; canaries a second by result.",
                    "short",
                    (
                        Query(f"vitrine_embedder_model_healthy{{{_ME}}}", "{{instance}} {{model}}"),
                        Query(
                            or_zero(rate("vitrine_embedder_canaries_total", "result", _ME), "result"),
                            "canaries {{result}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "What is served, and on what",
                    "Processes by model, provider, device and precision.",
                    "short",
                    (
                        Query(
                            "count by (name, version, provider, device, precision) "
                            f"(vitrine_embedder_model_info{{{_ME}}})",
                            "{{name}}@{{version}} {{provider}} {{device}} {{precision}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "GPU in use",
                    "Share of the time in which a kernel ran, and of the memory that is taken.",
                    "percentunit",
                    (
                        Query(f"vitrine_embedder_gpu_utilisation_ratio{{{_ME}}}", "{{device}}", _NO_GPU),
                        Query(
                            f"vitrine_embedder_gpu_memory_used_bytes{{{_ME}}}"
                            " / vitrine_embedder_gpu_memory_total_bytes",
                            "{{instance}} {{device}} memory",
                            _NO_GPU,
                        ),
                    ),
                    width=6,
                    most=1.0,
                ),
                Panel(
                    "GPU temperature",
                    "Of the die.",
                    "celsius",
                    (Query(f"vitrine_embedder_gpu_temperature_celsius{{{_ME}}}", "{{instance}} {{device}}", _NO_GPU),),
                    width=6,
                ),
                Panel(
                    "GPU held down, by reason",
                    "1 while the clocks are lower than they could be.",
                    "short",
                    (
                        Query(
                            f"max by (instance, reason) (vitrine_embedder_gpu_throttled{{{_ME}}})",
                            "{{instance}} {{reason}}",
                            _NO_GPU,
                        ),
                    ),
                    width=6,
                ),
            ),
        ),
        Row(
            "Cache of vectors",
            (
                Panel(
                    "Looked up, by result",
                    "memory and redis are hits; computed is a miss; shared waited for another's computation.",
                    "ops",
                    (Query(rate("vitrine_embedder_cache_lookups_total", "result", _ME), "{{result}}"),),
                    width=6,
                ),
                Panel(
                    "Vectors in memory",
                    "Held, and pushed out a second.",
                    "short",
                    (
                        Query(f"sum(vitrine_embedder_cache_entries{{{_ME}}})", "held"),
                        Query(rate("vitrine_embedder_cache_evictions_total", where=_ME), "pushed out a second"),
                    ),
                    width=6,
                ),
                Panel(
                    "Bytes in memory",
                    "Of the vectors held.",
                    "bytes",
                    (Query(f"sum by (instance) (vitrine_embedder_cache_bytes{{{_ME}}})", "{{instance}}"),),
                    width=6,
                ),
                Panel(
                    "Shared cache",
                    "1 while Redis answers (0 also where none is set); failures, unanswered and invalid a second.",
                    "short",
                    (
                        Query(f"vitrine_embedder_cache_redis_up{{{_ME}}}", "{{instance}}"),
                        Query(
                            rate("vitrine_embedder_cache_redis_failures_total", "reason", _ME), "{{reason}}", _NO_REDIS
                        ),
                        Query(
                            rate("vitrine_embedder_cache_redis_unanswered_total", "operation, reason", _ME),
                            "{{operation}} {{reason}}",
                            _NO_REDIS,
                        ),
                        Query(
                            or_zero(rate("vitrine_embedder_cache_invalid_total", "origin, reason", _ME), "origin"),
                            "{{origin}} {{reason}}",
                        ),
                    ),
                    width=6,
                ),
            ),
        ),
        _calls("vitrine-embedder", "vitrine.v1.Embedder"),
        _process("vitrine-embedder"),
    ),
    "vitrine-embedder",
)

_PLACE = f'job="vitrine-indexer",{_ME}'

INDEXER = Dashboard(
    "vitrine-indexer",
    "Vitrine: index shards",
    "Points, segments and commits; how searches are planned, how right they are, what the disk holds.",
    (
        Row(
            "Searches",
            (
                Panel(
                    "Time by stage, p99",
                    "queue is the wait for a thread; graph and scan are the search itself.",
                    "s",
                    (Query(quantile(0.99, "vitrine_indexer_search_stage_seconds", "stage", _ME), "{{stage}}"),),
                    width=6,
                ),
                Panel(
                    "Plans",
                    "How blocks and segments were searched: walk and over_fetch use the graph, scan and scan_matches "
                    "look at rows.",
                    "ops",
                    (
                        Query(rate("vitrine_indexer_plans_total", "plan", _ME), "{{plan}}"),
                        Query(rate("vitrine_indexer_graph_fallbacks_total", where=_ME), "graph fell short"),
                    ),
                    width=6,
                ),
                Panel(
                    "Recall@10 by selectivity, last hour",
                    "Share of the exact answer's best ten in sampled live answers, by how much the filter leaves.",
                    "percentunit",
                    (
                        Query(
                            f"sum by (selectivity) (increase(vitrine_indexer_canary_found_total{{{_ME}}}[1h])) / "
                            f"sum by (selectivity) (increase(vitrine_indexer_canary_expected_total{{{_ME}}}[1h]))",
                            "{{selectivity}}",
                        ),
                    ),
                    width=6,
                    least=0.8,
                    most=1.0,
                ),
                Panel(
                    "Search threads in use",
                    "Share of the time in which they search. At 100 % searches wait for one.",
                    "percentunit",
                    (Query(f'{SATURATION}{{resource="index search threads",{_ME}}}', "{{instance}}"),),
                    width=6,
                    most=1.0,
                ),
                Panel(
                    "Text searches, p99 by stage",
                    "wait is for the text index to be as new as the search.",
                    "s",
                    (Query(quantile(0.99, "vitrine_indexer_text_search_seconds", "stage", _ME), "{{stage}}"),),
                    width=12,
                ),
                Panel(
                    "Text index",
                    "Products in it, and commits that it has not taken in yet.",
                    "short",
                    (
                        Query(
                            f"sum by (collection) (vitrine_indexer_text_documents{{{_ME}}})", "{{collection}} products"
                        ),
                        Query(
                            f"max by (collection) (vitrine_indexer_text_lag_generations{{{_ME}}})",
                            "{{collection}} commits behind",
                        ),
                        Query(rate("vitrine_indexer_text_failures_total", where=_ME), "failures a second"),
                        Query(
                            or_zero(rate("vitrine_indexer_text_rebuilds_total", "reason", _ME), "reason"),
                            "rebuilt: {{reason}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "What is stored",
            (
                Panel(
                    "Points",
                    "Live points by collection and shard; shards of one collection hold about the same.",
                    "short",
                    (Query(f"vitrine_indexer_points{{{_ME}}}", "{{collection}} {{instance}}"),),
                    width=6,
                ),
                Panel(
                    "Segments, blocks waiting",
                    "Graphs being served, and full blocks that no segment replaces yet.",
                    "short",
                    (
                        Query(f"vitrine_indexer_segments{{{_ME}}}", "{{collection}} {{instance}}"),
                        Query(f"vitrine_indexer_builds_waiting{{{_ME}}}", "{{collection}} {{instance}} waiting"),
                    ),
                    width=6,
                ),
                Panel(
                    "Fresh points, dead rows, tombstones",
                    "Fresh points are searched exactly; dead rows cost searches until a segment is built anew.",
                    "short",
                    (
                        Query(f"sum by (collection) (vitrine_indexer_fresh_points{{{_ME}}})", "{{collection}} fresh"),
                        Query(f"sum by (collection) (vitrine_indexer_dead_rows{{{_ME}}})", "{{collection}} dead"),
                        Query(
                            f"sum by (collection) (vitrine_indexer_tombstones{{{_ME}}})", "{{collection}} tombstones"
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Generation",
                    "Commits since a collection was created.",
                    "short",
                    (Query(f"vitrine_indexer_generation{{{_ME}}}", "{{collection}} {{instance}}"),),
                    width=6,
                ),
                Panel(
                    "Disk, by collection",
                    "Allocated, snapshots not counted.",
                    "bytes",
                    (Query(f"vitrine_indexer_disk_bytes{{{_ME}}}", "{{collection}} {{instance}}"),),
                    width=6,
                ),
                Panel(
                    "Disk in use",
                    "Of the whole file system of data_dir. A full disk refuses writes.",
                    "percentunit",
                    (Query(f'{SATURATION}{{resource="disk",{_ME}}}', "{{instance}}"),),
                    width=6,
                    most=1.0,
                ),
                Panel(
                    "Segments built, mean time",
                    "seal: of full blocks; merge: of small segments; purge: of dead rows.",
                    "s",
                    (
                        Query(
                            f"sum by (kind) (increase(vitrine_indexer_build_seconds_sum{{{_ME}}}[1h])) / "
                            f"(sum by (kind) (increase(vitrine_indexer_build_seconds_count{{{_ME}}}[1h])) > 0)",
                            "{{kind}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Build under way",
                    "Points of the segment being built, and how many are in its graph.",
                    "short",
                    (
                        Query(f"vitrine_indexer_building_points{{{_ME}}}", "{{instance}} of"),
                        Query(f"vitrine_indexer_built_points{{{_ME}}}", "{{instance}} done"),
                    ),
                    width=6,
                ),
                Panel(
                    "Builds failed, segments damaged",
                    "In the last hour. Either is worth a look.",
                    "short",
                    (
                        Query(f"increase(vitrine_indexer_build_failures_total{{{_ME}}}[1h])", "{{instance}} failed"),
                        Query(f"increase(vitrine_indexer_damaged_segments_total{{{_ME}}}[1h])", "{{instance}} damaged"),
                    ),
                    width=6,
                ),
                Panel(
                    "Segment loaded, snapshot taken: mean time",
                    "A load pauses other Python threads of the shard; a snapshot does not.",
                    "s",
                    (
                        Query(
                            f"sum(increase(vitrine_indexer_segment_load_seconds_sum{{{_ME}}}[1h])) / "
                            f"(sum(increase(vitrine_indexer_segment_load_seconds_count{{{_ME}}}[1h])) > 0)",
                            "load",
                        ),
                        Query(
                            f"sum(increase(vitrine_indexer_snapshot_seconds_sum{{{_ME}}}[1h])) / "
                            f"(sum(increase(vitrine_indexer_snapshot_seconds_count{{{_ME}}}[1h])) > 0)",
                            "snapshot",
                        ),
                    ),
                    width=6,
                ),
            ),
        ),
        _calls("vitrine-indexer", "vitrine.v1.Indexer"),
        _process("vitrine-indexer"),
    ),
    "vitrine-indexer",
)
