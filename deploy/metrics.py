"""`python -m deploy.metrics` writes docs/metrics.md: every metric of every service, as the code defines it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "metrics.md"

# What is measured when Prometheus asks, and so has no object in a metrics module.
_COLLECTORS = {"embedder": "services.embedder.gpu", "indexer": "services.indexer.disk"}
_SERVICES = {
    "runtime": "Every service",
    "gateway": "Gateway",
    "embedder": "Embedder",
    "indexer": "Indexer",
}

LABELS = {
    "action": "what a shopper can do, in `search.proto`",
    "calibrated": "true, false",
    "call": "an RPC of `VisualSearch` that ranks products",
    "code": "the 17 gRPC status codes",
    "collection": "at most `max_collections` (64); gone when the collection is dropped",
    "device": "GPUs in use: one for each embedder",
    "fingerprint": "one for each model served",
    "grpc_code": "the 17 gRPC status codes",
    "grpc_method": "methods of the contracts",
    "grpc_service": "services of the contracts",
    "grpc_type": "unary, client_stream, server_stream, bidi_stream",
    "kind": "seal, merge, purge",
    "method": "HTTP methods, or other",
    "model": "`name@version` of each model served: `model_dirs`",
    "name": "one for each model served",
    "operation": "read, write",
    "origin": "redis, model",
    "outcome": "the few words of its help",
    "plan": "walk, scan, over_fetch, scan_matches",
    "precision": "fp32, fp16, int8",
    "priority": "interactive, bulk",
    "provider": "cpu, cuda, tensorrt",
    "python": "one: of the interpreter",
    "query": "the kinds of query part in `search.proto`",
    "reason": "a fixed list in the code",
    "result": "a few words: ok, failed, ...",
    "route": "routes of the HTTP API, or none",
    "selectivity": "eight bands, from unfiltered to 0-1 %",
    "secret": "tls, auth",
    "service": "gateway, embedder, indexer",
    "shard": "indexes of the shards that the gateway is told of",
    "stage": "stages that the code knows; see `StageTiming` in the contracts",
    "state": "closed, open, half_open",
    "status": "HTTP status codes that the gateway answers with",
    "version": "one: of the service, or of each model",
}
"""What bounds the values of each label."""

_HEADER = """\
# Metrics

Made by `python -m deploy.metrics` from the metrics modules of the services; a test keeps it true. Every process serves
its own at `/metrics` on its gRPC port + 1000 (`metrics_port`), as text or, where the scraper asks, as OpenMetrics: then
with **exemplars**, which carry the `trace_id` of a call that was traced (`otlp_endpoint`). Counters end in `_total`,
histograms in `_bucket`, `_sum` and `_count`; all are given as they are queried.

What to make of them: the dashboards in `deploy/grafana/`, the rules in `deploy/prometheus/rules/`, and a page for each
alert in [runbooks/](runbooks/). No label takes a value that a caller can make up.
"""


class Described(NamedTuple):
    """One metric, as a reader of the documentation sees it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


def described() -> dict[str, list[Described]]:
    """Returns the metrics of each service (`runtime`: of all of them)."""
    found = {}
    for service in _SERVICES:
        own = list(_of_module(importlib.import_module(f"services.{service}.metrics")))
        if service in _COLLECTORS:
            own += _of_families(importlib.import_module(_COLLECTORS[service]).FAMILIES)
        found[service] = own
    return found


def series_names() -> set[str]:
    """Returns the names under which series of ours are stored and queried."""
    return {
        name
        for metrics in described().values()
        for each in metrics
        for name in (
            [f"{each.name}_bucket", f"{each.name}_sum", f"{each.name}_count"]
            if each.kind == "histogram"
            else [each.name]
        )
    }


def render() -> str:
    """Returns the page."""
    parts = [_HEADER]
    for service, metrics in described().items():
        parts.append(f"\n## {_SERVICES[service]}\n\n| metric | type | labels | |\n|---|---|---|---|\n")
        parts += [_row(each) for each in metrics]
    parts.append("\n## Of the process, by the Prometheus client\n\n| metric | type | |\n|---|---|---|\n")
    parts += [f"| `{name}` | {metric.type} | {metric.documentation} |\n" for name, metric in _standard()]
    parts.append("\n## Labels, and what bounds them\n\n| label | values |\n|---|---|\n")
    used = {label for metrics in described().values() for each in metrics for label in each.labels}
    if missing := sorted(used - LABELS.keys()):
        raise SystemExit(f"deploy.metrics.LABELS must say what bounds the values of {', '.join(missing)}")
    parts += [f"| `{label}` | {LABELS[label]} |\n" for label in sorted(used)]
    return "".join(parts)


def _of_module(module: ModuleType) -> Iterator[Described]:
    for value in vars(module).values():
        match value:
            case Histogram():
                finite = tuple(bound for bound in value._kwargs["buckets"] if bound != float("inf"))
                yield _of_object(value, "histogram", "", finite)
            case Counter():
                yield _of_object(value, "counter", "_total")
            case Gauge():
                yield _of_object(value, "gauge")


def _of_object(metric: MetricWrapperBase, kind: str, suffix: str = "", buckets: tuple[float, ...] = ()) -> Described:
    return Described(metric._name + suffix, kind, metric._documentation, metric._labelnames, buckets)


def _of_families(families: Mapping[str, tuple[str, tuple[str, ...]]]) -> list[Described]:
    return [Described(name, "gauge", text, labels) for name, (text, labels) in families.items()]


def _standard() -> Iterator[tuple[str, Metric]]:
    for metric in REGISTRY.collect():
        if metric.name.startswith(("process_", "python_")):
            yield metric.name + ("_total" if metric.type == "counter" else ""), metric


def _row(each: Described) -> str:
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in each.buckets)}." if each.buckets else ""
    labels = ", ".join(f"`{label}`" for label in each.labels)
    return f"| `{each.name}` | {each.kind} | {labels} | {each.help}{buckets} |\n"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"wrote {PAGE}")
