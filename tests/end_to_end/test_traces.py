"""One trace through all services, on real processes and a real OTLP collector; and no trace where none is wanted."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.local.stack import ROOT
from tests.collector import collecting
from tests.end_to_end.test_whole_path import vitrine
from tests.watching import scrape
from vitrine.channels import open_channel
from vitrine.v1 import search_pb2, search_pb2_grpc

PRODUCT = "S0044"
CATALOGUE = ROOT / "examples" / "catalogue"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "clients")))}
TRACE_ID, CALLER_SPAN, BROWSER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def traced(endpoint, **settings):
    return {
        f"VITRINE_{service}_{name}": value
        for service in ("GATEWAY", "EMBEDDER", "INDEXER")
        for name, value in {"OTLP_ENDPOINT": endpoint, **settings}.items()
    }


def search(**fields):
    photo = next((CATALOGUE / "queries").glob("*.jpg")).read_bytes()
    query = [search_pb2.QueryPart(image=photo)]
    return search_pb2.SearchRequest(**{"collection": "shop", "query": query, **fields})


def fetch(address, headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
        assert answer.status == 200


async def test_a_search_is_one_trace_through_all_services_and_logs_and_metrics_lead_to_it(make_stack):
    async with collecting() as (collector, endpoint):
        # Nothing is sampled unless the caller's own trace is: the ingestion before leaves no span.
        stack = make_stack(environment=traced(endpoint, TRACE_SAMPLE_RATIO="0", LOG_FORMAT="json"))
        async with stack.supervisor:
            await stack.start()
            status, out, err = await vitrine(stack, "ingest", CATALOGUE / "products.csv", "--collection", "shop")
            assert status == 0, out + err
            metadata = (
                ("traceparent", f"00-{TRACE_ID}-{CALLER_SPAN}-01"),
                ("tracestate", "shop=1"),
                ("x-request-id", "req-42"),
            )
            async with open_channel(stack.gateway) as channel:
                stub = search_pb2_grpc.VisualSearchStub(channel)
                assert len((await stub.Search(search(), metadata=metadata)).results) == 10
                await asyncio.gather(
                    stub.Search(search(collection="nowhere"), metadata=metadata), return_exceptions=True
                )
            similar = f"{stack.page}/v1/similar/{PRODUCT}?collection=shop"
            await asyncio.to_thread(fetch, similar, {"Traceparent": f"00-{TRACE_ID}-{BROWSER_SPAN}-01"})
            await collector.wait(lambda spans: any(s.parent == BROWSER_SPAN for s in spans))
            openmetrics = await scrape(
                stack.ports.metrics[stack.ports.gateway], accept="application/openmetrics-text; version=1.0.0"
            )
            plain = await scrape(stack.ports.metrics[stack.ports.gateway])
        spans = list(collector.spans)  # all of them: those left are sent when a service stops

    assert {span.trace_id for span in spans} == {TRACE_ID}
    by_id = {span.span_id: span for span in spans}
    served = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    at_gateway = sorted((span for span in served if span.service == "vitrine-gateway"), key=lambda s: s.start)
    first, second, over_http = at_gateway
    assert first.name == "vitrine.v1.VisualSearch/Search"
    assert (first.parent, second.parent) == (CALLER_SPAN, CALLER_SPAN)
    assert (first.attributes["rpc.grpc.status_code"], second.attributes["rpc.grpc.status_code"]) == (0, 5)
    assert not second.failed  # the caller's mistake is no error of ours

    def served_below(span):
        """The spans of services that this one called, through the spans of the calls."""
        called = {s.span_id for s in spans if s.parent == span.span_id and s.kind == Span.SPAN_KIND_CLIENT}
        return sorted((s for s in served if s.parent in called), key=lambda s: s.service)

    below = served_below(first)
    assert [span.name for span in below] == [
        "vitrine.v1.Embedder/Embed",
        "vitrine.v1.Indexer/Search",
        "vitrine.v1.Indexer/Search",
    ]
    for span in below:
        call = by_id[span.parent]
        assert first.start <= call.start <= span.start <= span.end <= call.end <= first.end
        assert (call.service, call.name) == ("vitrine-gateway", span.name)
        assert span.attributes["vitrine.request_id"] == "req-42"

    assert over_http.name == "GET /v1/similar/{product_id:path}"
    assert (over_http.parent, over_http.attributes["http.response.status_code"]) == (BROWSER_SPAN, 200)
    assert {span.name for span in served_below(over_http)} == {"vitrine.v1.Indexer/Get", "vitrine.v1.Indexer/Search"}

    def stages(span):
        own = [s for s in spans if s.parent == span.span_id and s.kind == Span.SPAN_KIND_INTERNAL]
        assert all(span.start <= s.start <= s.end <= span.end for s in own)
        return [s.name for s in sorted(own, key=lambda s: s.start)]

    assert stages(first) == ["embed", "index", "merge"]
    assert stages(below[0]) == ["queue", "decode", "model"]
    assert {"queue", "scan", "rank", "answer"} <= set(stages(below[1]))

    exemplars = [line for line in openmetrics.splitlines() if f'# {{trace_id="{TRACE_ID}"}}' in line]
    assert any(line.startswith("grpc_server_handling_seconds_bucket") for line in exemplars)
    assert any(line.startswith("vitrine_gateway_answer_seconds_bucket") for line in exemplars)
    assert openmetrics.rstrip().endswith("# EOF")
    assert TRACE_ID not in plain


async def test_what_is_logged_of_a_call_names_its_trace_and_its_request_in_every_service(make_stack):
    async with collecting() as (collector, endpoint):
        stack = make_stack(shards=1, environment=traced(endpoint, LOG_FORMAT="json", LOG_LEVEL="debug"))
        async with stack.supervisor:
            await stack.start()
            async with open_channel(stack.gateway) as channel:
                stub = search_pb2_grpc.VisualSearchStub(channel)
                metadata = (("x-request-id", "req-43"),)
                await asyncio.gather(stub.Search(search(), metadata=metadata), return_exceptions=True)
            await collector.wait(lambda spans: any(s.name == "vitrine.v1.VisualSearch/Search" for s in spans))
        roots = [span for span in collector.spans if not span.parent]
        logged = {
            name: [json.loads(line) for line in (stack.data / "logs" / f"{name}.log").read_text().splitlines()]
            for name in ("gateway", "embedder", "indexer-0")
        }
    (root,) = [span for span in roots if span.attributes.get("vitrine.request_id") == "req-43"]
    for name, lines in logged.items():
        own = [line for line in lines if line.get("request_id") == "req-43"]
        assert own, f"{name} logged nothing of the call"
        assert {line.get("trace_id") for line in own} == {root.trace_id}, name


@pytest.mark.parametrize("service", ["gateway.__main__", "embedder.__main__", "indexer.app"])
def test_without_an_endpoint_nothing_is_loaded_that_traces(service):
    program = f"""
import sys
import services.{service}
from services.gateway.settings import GatewaySettings
from services.runtime.tracing import serve_call, start_tracing

start_tracing(GatewaySettings())()
assert serve_call("/vitrine.v1.VisualSearch/Search", {{"traceparent": "00-{TRACE_ID}-{CALLER_SPAN}-01"}}, "id") is None
print([name for name in sys.modules if name.startswith(("opentelemetry.exporter", "opentelemetry.sdk.trace"))])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"[]\n"), done.stderr.decode()
