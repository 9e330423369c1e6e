"""Unit tests of the alerts, for promtool: each alert fires where it must, and stays silent where it must not."""

from __future__ import annotations

from dataclasses import dataclass

_GATEWAY = 'job="vitrine-gateway",instance="g:51050"'
_EMBEDDER = 'job="vitrine-embedder",instance="e:51051"'
_SHARD = 'job="vitrine-indexer",instance="i:51060"'
_G = {"job": "vitrine-gateway", "instance": "g:51050"}
_E = {"job": "vitrine-embedder", "instance": "e:51051"}
_I = {"job": "vitrine-indexer", "instance": "i:51060"}
_MODEL = 'model="lite@1"'
_SEARCH = 'grpc_type="unary",grpc_service="vitrine.v1.VisualSearch",grpc_method="Search"'


@dataclass(frozen=True)
class Case:
    """What Prometheus sees, and which alerts it must raise."""

    alert: str
    name: str
    series: dict[str, str]
    """Values by series, one each `interval`, in promtool's notation."""
    at: str
    fires: tuple[dict[str, str], ...] = ()
    """Labels of each alert that must fire, severity not counted."""
    interval: str = "1m"


def _searches(answered: int, lacking: float = 0.0, failed: int = 0, minutes: int = 130) -> dict[str, str]:
    """A minute's worth of answers, of what they lack in shards, and of failures, again and again."""
    return {
        f'vitrine_gateway_coverage_ratio_count{{{_GATEWAY},call="Search"}}': f"0+{answered}x{minutes}",
        f'vitrine_gateway_coverage_ratio_sum{{{_GATEWAY},call="Search"}}': f"0+{answered - lacking:g}x{minutes}",
        f'grpc_server_handled_total{{{_GATEWAY},{_SEARCH},grpc_code="UNAVAILABLE"}}': f"0+{failed}x{minutes}",
        # A caller's mistakes cost nothing.
        f'grpc_server_handled_total{{{_GATEWAY},{_SEARCH},grpc_code="INVALID_ARGUMENT"}}': f"0+500x{minutes}",
    }


def _share(good: str, total: str, share: float, minutes: int = 130) -> dict[str, str]:
    """A hundred events a minute, of which a share is good."""
    return {good: f"0+{100 * share:g}x{minutes}", total: f"0+100x{minutes}"}


def _latency(share: float, minutes: int = 130) -> dict[str, str]:
    name = f'vitrine_gateway_answer_seconds_{{}}{{{{{_GATEWAY},call="Search"{{}}}}}}'
    return _share(name.format("bucket", ',le="0.32"'), name.format("count", ""), share, minutes)


def _freshness(share: float, minutes: int = 130) -> dict[str, str]:
    name = f"vitrine_indexer_freshness_seconds_{{}}{{{{{_SHARD}{{}}}}}}"
    return _share(name.format("bucket", ',le="1.0"'), name.format("count", ""), share, minutes)


def _recall(share: float, minutes: int = 130) -> dict[str, str]:
    name = f'vitrine_indexer_canary_{{}}_total{{{{{_SHARD},collection="shop",selectivity="unfiltered"}}}}'
    return _share(name.format("found"), name.format("expected"), share, minutes)


def _disk(start: int, step: int, minutes: int) -> dict[str, str]:
    return {
        f"vitrine_indexer_disk_free_bytes{{{_SHARD}}}": f"{start}{step:+d}x{minutes}",
        f"vitrine_indexer_disk_size_bytes{{{_SHARD}}}": f"1000000+0x{minutes}",
    }


def _ingested(ok: int, failed: int) -> dict[str, str]:
    name = f'vitrine_embedder_ingest_items_total{{{{{_EMBEDDER},code="{{}}"}}}}'
    return {name.format("OK"): f"0+{ok}x60", name.format("INVALID_ARGUMENT"): f"0+{failed}x60"}


def _lag(late: int) -> dict[str, str]:
    name = f'vitrine_event_loop_lag_seconds_bucket{{{{{_GATEWAY},le="{{}}"}}}}'
    return {name.format("0.01"): f"0+{120 - late}x60", name.format("0.5"): "0+120x60", name.format("+Inf"): "0+120x60"}


def _dropped(priority: str, reason: str) -> str:
    return f'vitrine_embedder_dropped_total{{{_EMBEDDER},{_MODEL},priority="{priority}",reason="{reason}"}}'


def _over(series: dict[str, str]) -> dict[str, str]:
    """The same, and then two hours of nothing."""
    return {name: f"{values} {_last(values)}x120" for name, values in series.items()}


def _last(values: str) -> str:
    start, _, rest = values.partition("+")
    step, _, times = rest.partition("x")
    return f"{float(start) + float(step) * int(times):g}"


def _pair(alert: str, at: str, fires: dict[str, str], bad: dict[str, str], good: dict[str, str]) -> tuple[Case, Case]:
    return Case(alert, "fires", bad, at, (fires,)), Case(alert, "stays silent", good, at)


_OBJECTIVES = {
    "SearchAvailability": "search_availability",
    "SearchLatency": "search_latency",
    "Freshness": "freshness",
    "Recall": "recall",
}
_FAST = {
    "SearchAvailability": _searches(1000, failed=30),
    "SearchLatency": _latency(0.80),
    "Freshness": _freshness(0.80),
    "Recall": _recall(0.50),
}
_SLOW = {
    "SearchAvailability": _searches(1000, lacking=4.0),  # degraded answers only
    "SearchLatency": _latency(0.96),
    "Freshness": _freshness(0.96),
    "Recall": _recall(0.90),
}
_WITHIN = {
    "SearchAvailability": _searches(1000, lacking=0.5),
    "SearchLatency": _latency(0.995),
    "Freshness": _freshness(0.999),
    "Recall": _recall(0.98),
}
_DEAD = {f"up{{{_SHARD}}}": "1x10 0x60", f"up{{{_EMBEDDER}}}": "1x70"}

CASES: tuple[Case, ...] = (
    *(
        case
        for alert, slo in _OBJECTIVES.items()
        for case in (
            *_pair(f"{alert}BurnsFast", "2h", {"slo": slo}, _FAST[alert], _WITHIN[alert]),
            *_pair(f"{alert}BurnsSlowly", "2h", {"slo": slo}, _SLOW[alert], _WITHIN[alert]),
            Case(f"{alert}BurnsFast", "a slow burn is no page", _SLOW[alert], "2h"),
            Case(f"{alert}BurnsFast", "what is over is no page", _over(_FAST[alert]), "4h"),
        )
    ),
    Case(
        "NothingServes",
        "all gateways are away",
        {f"up{{{_GATEWAY}}}": "0x30", f"vitrine_serving{{{_EMBEDDER}}}": "1x30", f"up{{{_EMBEDDER}}}": "1x30"},
        "10m",
        ({"job": "vitrine-gateway"},),
    ),
    Case(
        "NothingServes",
        "the only one says it cannot",
        {f"up{{{_GATEWAY}}}": "1x30", f"vitrine_serving{{{_GATEWAY}}}": "0x30"},
        "10m",
        ({"job": "vitrine-gateway"},),
    ),
    Case(
        "NothingServes",
        "one of two is enough",
        {
            f"up{{{_GATEWAY}}}": "1x30",
            f"vitrine_serving{{{_GATEWAY}}}": "1x30",
            'up{job="vitrine-gateway",instance="h:51050"}': "0x30",
        },
        "10m",
    ),
    Case("ProcessDown", "fires", _DEAD, "20m", (_I,)),
    Case("ProcessDown", "a restart is none", {f"up{{{_SHARD}}}": "1x10 0x2 1x60"}, "20m"),
    *_pair(
        "NotServing",
        "10m",
        _E,
        {f"vitrine_serving{{{_EMBEDDER}}}": "0x30"},
        {f"vitrine_serving{{{_EMBEDDER}}}": "1x30"},
    ),
    *_pair("EventLoopBlocked", "30m", _G, _lag(late=10), _lag(late=1)),
    *_pair(
        "SettingsNotReloaded",
        "30m",
        _E,
        {f'vitrine_settings_reloads_total{{{_EMBEDDER},result="failed"}}': "0x10 1x60"},
        {
            f'vitrine_settings_reloads_total{{{_EMBEDDER},result="failed"}}': "1x60",
            f'vitrine_settings_reloads_total{{{_EMBEDDER},result="ok"}}': "0x10 1x60",
        },
    ),
    *_pair(
        "SecretNotReloaded",
        "30m",
        {**_E, "secret": "tls"},
        {f'vitrine_secret_reloads_total{{{_EMBEDDER},secret="tls",result="failed"}}': "0x10 1x60"},
        {f'vitrine_secret_reloads_total{{{_EMBEDDER},secret="tls",result="ok"}}': "0x10 1x60"},
    ),
    *_pair(
        "CertificateExpires",
        "10m",
        _G,
        {f"vitrine_tls_certificate_expires_timestamp_seconds{{{_GATEWAY}}}": f"{13 * 86_400}x60"},
        {f"vitrine_tls_certificate_expires_timestamp_seconds{{{_GATEWAY}}}": f"{15 * 86_400}x60"},
    ),
    Case(
        "CertificateExpires",
        "there is none",
        {f"vitrine_tls_certificate_expires_timestamp_seconds{{{_GATEWAY}}}": "0x60"},
        "10m",
    ),
    *_pair(
        "Saturated",
        "30m",
        {**_G, "resource": "calls in flight"},
        {f"vitrine_rpcs_in_flight{{{_GATEWAY}}}": "250x60", f"vitrine_rpcs_in_flight_limit{{{_GATEWAY}}}": "256x60"},
        {
            f"vitrine_rpcs_in_flight{{{_GATEWAY}}}": "250x10 100x60",
            f"vitrine_rpcs_in_flight_limit{{{_GATEWAY}}}": "256x60",
        },
    ),
    Case(
        "Saturated",
        "lanes that are always busy are full",
        {
            f"vitrine_embedder_lane_busy_seconds_total{{{_EMBEDDER},{_MODEL}}}": "0+118x60",
            f"vitrine_embedder_lanes{{{_EMBEDDER},{_MODEL}}}": "2x60",
        },
        "30m",
        ({**_E, "resource": "embedder lanes"},),
    ),
    *_pair(
        "MemoryNearlyFull",
        "30m",
        _I,
        {f"process_resident_memory_bytes{{{_SHARD}}}": "95x60", f"vitrine_memory_limit_bytes{{{_SHARD}}}": "100x60"},
        {f"process_resident_memory_bytes{{{_SHARD}}}": "80x60", f"vitrine_memory_limit_bytes{{{_SHARD}}}": "100x60"},
    ),
    *_pair(
        "Overloaded",
        "30m",
        _G,
        {f'vitrine_rpcs_shed_total{{{_GATEWAY},reason="max_concurrent_rpcs"}}': "0+5x60"},
        {f'vitrine_rpcs_shed_total{{{_GATEWAY},reason="max_concurrent_rpcs"}}': "0+5x4 20x60"},
    ),
    Case(
        "Overloaded",
        "images refused by the embedder",
        {
            _dropped("interactive", "queue_full"): "0+5x60",
            _dropped("bulk", "expired"): "0+5x60",
        },
        "30m",
        (_E,),
    ),
    Case(
        "Overloaded",
        "callers who left are none",
        {_dropped("interactive", "cancelled"): "0+5x60"},
        "30m",
    ),
    # 100 bytes a minute of 1,000,000: four days need 576,000.
    *_pair("DiskFullInDays", "8h", _I, _disk(390_000, -100, 600), _disk(390_000, -10, 600)),
    Case("DiskFullInDays", "a nearly empty disk is no worry", _disk(900_000, -1000, 300), "2h"),
    *_pair("DiskFullInHours", "2h", _I, _disk(190_000, -800, 200), _disk(190_000, -100, 200)),
    Case("DiskFullInHours", "nearly full, though it fills no more", _disk(30_000, 0, 60), "30m", (_I,)),
    *_pair(
        "BreakerOpen",
        "10m",
        {**_G, "shard": "1"},
        {f'vitrine_gateway_breaker_state{{{_GATEWAY},shard="1"}}': "2x30"},
        {f'vitrine_gateway_breaker_state{{{_GATEWAY},shard="1"}}': "0x30"},
    ),
    *_pair(
        "ModelDoesNotAnswer",
        "10m",
        {"job": "vitrine-embedder", "model": "lite@1"},
        {f"vitrine_embedder_model_healthy{{{_EMBEDDER},{_MODEL}}}": "0x30"},
        {
            f"vitrine_embedder_model_healthy{{{_EMBEDDER},{_MODEL}}}": "0x30",
            f'vitrine_embedder_model_healthy{{job="vitrine-embedder",instance="f:51051",{_MODEL}}}': "1x30",
        },
    ),
    *_pair(
        "NoRecentBatch",
        "40m",
        {**_E, "model": "lite@1"},
        {f'vitrine_embedder_batches_total{{{_EMBEDDER},{_MODEL},result="ok"}}': "0+1x10 10x60"},
        {f'vitrine_embedder_batches_total{{{_EMBEDDER},{_MODEL},result="ok"}}': "0+1x70"},
    ),
    *_pair(
        "SharedCacheDown",
        "40m",
        _E,
        {
            f"vitrine_embedder_cache_redis_up{{{_EMBEDDER}}}": "0x60",
            f'vitrine_embedder_cache_redis_failures_total{{{_EMBEDDER},reason="refused"}}': "0+1x60",
        },
        {  # none is configured
            f"vitrine_embedder_cache_redis_up{{{_EMBEDDER}}}": "0x60",
        },
    ),
    *_pair("IngestionFails", "50m", _E, _ingested(ok=80, failed=20), _ingested(ok=95, failed=5)),
    *_pair(
        "SegmentBuildsFail",
        "40m",
        _I,
        {f"vitrine_indexer_build_failures_total{{{_SHARD}}}": "0x10 1 2 3 4x60"},
        {f"vitrine_indexer_build_failures_total{{{_SHARD}}}": "0x10 1x60"},
    ),
    *_pair(
        "SegmentDamaged",
        "40m",
        _I,
        {f"vitrine_indexer_damaged_segments_total{{{_SHARD}}}": "0x10 1x60"},
        {f"vitrine_indexer_damaged_segments_total{{{_SHARD}}}": "1x70"},
    ),
    *_pair(
        "TextIndexFails",
        "40m",
        _I,
        # As it tries again: after half a second, one, two, four, and in the end every half minute.
        {f"vitrine_indexer_text_failures_total{{{_SHARD}}}": "0x10 5+2x60"},
        {f"vitrine_indexer_text_failures_total{{{_SHARD}}}": "0x10 1x10 2x10 3x60"},
    ),
    Case(
        "TextIndexFails",
        "a file that is damaged each time it was made anew",
        {
            f"vitrine_indexer_text_failures_total{{{_SHARD}}}": "0x60",
            f'vitrine_indexer_text_rebuilds_total{{{_SHARD},reason="damaged"}}': "0+1x60",
        },
        "40m",
        (_I,),
    ),
    Case(
        "TextIndexFails",
        "catching up after kills is no failure",
        {
            f"vitrine_indexer_text_failures_total{{{_SHARD}}}": "0x60",
            f'vitrine_indexer_text_rebuilds_total{{{_SHARD},reason="behind"}}': "0+1x60",
        },
        "40m",
    ),
)
