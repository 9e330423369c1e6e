"""The gateway as a real process, alone: start, refusals, health, reflection, metrics, drain."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from tests.watching import scrape
from vitrine import AsyncVitrine
from vitrine.errors import DeadlineError, UnavailableError, from_rpc_error
from vitrine.v1 import common_pb2, embedder_pb2_grpc, filter_pb2, search_pb2, search_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def gateway(tmp_path, **settings):
    """A running gateway whose embedder and shards are closed ports unless `settings` says otherwise."""
    ports = Ports.free(2)
    values = {
        "PORT": ports.gateway,
        "METRICS_PORT": ports.metrics[ports.gateway],
        "HTTP_PORT": ports.http,
        "EMBEDDER": f"127.0.0.1:{ports.embedder}",
        "INDEXERS": ",".join(f"127.0.0.1:{port}" for port in ports.indexers),
        **settings,
    }
    environment = {f"VITRINE_GATEWAY_{name}": str(value) for name, value in values.items()}
    spec = ProcessSpec("gateway", "services.gateway", f"127.0.0.1:{ports.gateway}", environment)
    async with Supervisor(ROOT, tmp_path / "logs") as supervisor:
        await supervisor.start(spec)
        yield supervisor, spec.address, ports.metrics[ports.gateway]


class HungEmbedder(embedder_pb2_grpc.EmbedderServicer):
    async def Embed(self, request, context):
        await asyncio.sleep(600)


@asynccontextmanager
async def hung_embedder():
    """The address of a server that takes calls and never answers."""
    server = grpc.aio.server()
    embedder_pb2_grpc.add_EmbedderServicer_to_server(HungEmbedder(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def image_query(**fields):
    return search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(image=b"never looked at here")], **fields
    )


async def test_health_reflection_metrics_and_status_without_anything_else(tmp_path):
    async with gateway(tmp_path) as (_, address, metrics_port), grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "vitrine.v1.VisualSearch"):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING

        def reflected():
            with grpc.insecure_channel(address) as plain:
                return ProtoReflectionDescriptorDatabase(plain).get_services()

        assert "vitrine.v1.VisualSearch" in await asyncio.to_thread(reflected)

        async with AsyncVitrine(address) as client:
            status = await client.status()
            assert [each.component for each in status.components] == ["embedder", "shard 0", "shard 1"]
            assert not any(each.healthy for each in status.components)
            assert all(each.detail for each in status.components)
            with pytest.raises(UnavailableError):
                await client.search("shop", image=b"x")
            with pytest.raises(UnavailableError, match=r"shard \d, which owns the product"):
                await client.get("shop", "p1")

        text = await scrape(metrics_port)
    assert re.search(r'grpc_server_handled_total\{grpc_code="UNAVAILABLE",grpc_method="Search",.*\} [1-9]', text)
    assert "vitrine_serving 1.0" in text


def image_part(**fields):
    part = search_pb2.QueryPart(image=b"never looked at here", **fields)
    return search_pb2.SearchRequest(collection="shop", query=[part])


BAD_REQUESTS = {
    "k is 1001, must be 0 to 1000": image_query(k=1001),
    "ef is 10001, must be 0 to 10000": image_query(ef=10001),
    "top_tags is 101": image_query(top_tags=101),
    "min_coverage is 1.5": image_query(min_coverage=1.5),
    "min_coverage is nan": image_query(min_coverage=float("nan")),
    "min_score inf is not finite": image_query(min_score=float("inf")),
    "exclude_product_ids is 1001": image_query(exclude_product_ids=["p"] * 1001),
    "filter and filter_text are both set": image_query(
        filter_text="a = 1", filter=filter_pb2.Filter(exists=filter_pb2.Exists(attribute="a"))
    ),
    "filter": image_query(filter_text="price <"),
    "query has no part": search_pb2.SearchRequest(collection="shop"),
    "query has 9 parts, at most 8": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(image=b"x")] * 9
    ),
    "several text parts": search_pb2.SearchRequest(collection="shop", query=[search_pb2.QueryPart(text="sofa")] * 2),
    r"query\[0\]\.text has no word": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(text=" ")]
    ),
    r"query\[0\]\.text has 1025 bytes, at most 1024": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(text="a" * 1025)]
    ),
    r"query\[0\]\.weight is -1, must be above 0 for text": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(text="a", weight=-1), search_pb2.QueryPart(image=b"x")]
    ),
    r"query\[0\]\.weight is 0, must be -10 to 10 and not 0": image_part(weight=0),
    r"query\[0\]\.weight is nan": image_part(weight=float("nan")),
    "no part with a positive weight": image_part(weight=-1),
    r"query\[0\]\.auto_crop and query\[0\]\.box: send one": image_part(
        auto_crop=True, box=common_pb2.Box(width=1, height=1)
    ),
    r"query\[0\]\.box needs an image": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(text="a", box=common_pb2.Box(width=1, height=1))]
    ),
    "min_score and a text part": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(text="sofa")], min_score=0.5
    ),
    "user_key has 257 bytes, at most 256": image_query(user_key="u" * 257),
    "facets is 17, must be 0 to 16": image_query(facets=[f"f{index}" for index in range(17)]),
    r"facets\[0\] has 0 bytes": image_query(facets=[""]),
    "facets names an attribute twice": image_query(facets=["a", "a"]),
    "min_generations names shard 2, there are 2": image_query(min_generations={2: 1}),
    "page_token is no page token": image_query(page_token=b"x"),
    r"ranking\.candidates is 5, must be 10": image_query(ranking=search_pb2.Ranking(candidates=5)),
    r"ranking\.diversity is 1\.5": image_query(ranking=search_pb2.Ranking(diversity=1.5)),
    r"ranking\.boosts\[0\]\.amount is 2": image_query(
        ranking=search_pb2.Ranking(boosts=[search_pb2.Boost(filter_text="a = 1", amount=2)])
    ),
    r"ranking\.boosts\[0\]\.filter_text: ": image_query(
        ranking=search_pb2.Ranking(boosts=[search_pb2.Boost(filter_text="a =", amount=1)])
    ),
    r"ranking\.boosts has 33 entries, at most 32": image_query(
        ranking=search_pb2.Ranking(boosts=[search_pb2.Boost(filter_text="a = 1", amount=1)] * 33)
    ),
    r"ranking\.caps\[0\]\.most is 0, must be 1 to 1000": image_query(
        ranking=search_pb2.Ranking(caps=[search_pb2.Cap(attribute="brand")])
    ),
    r"ranking\.caps\[0\]\.attribute has 0 bytes": image_query(
        ranking=search_pb2.Ranking(caps=[search_pb2.Cap(most=1)])
    ),
    r"ranking\.caps names an attribute twice": image_query(
        ranking=search_pb2.Ranking(caps=[search_pb2.Cap(attribute="brand", most=1)] * 2)
    ),
    r"query\[0\] is empty": search_pb2.SearchRequest(collection="shop", query=[search_pb2.QueryPart()]),
    "collection 'Not A Name'": search_pb2.SearchRequest(
        collection="Not A Name", query=[search_pb2.QueryPart(image=b"x")]
    ),
    "product_id has 0 bytes": search_pb2.SearchRequest(
        collection="shop", query=[search_pb2.QueryPart(stored=common_pb2.PointKey())]
    ),
}


SOMETHING = common_pb2.PointKey(product_id="p1")

BAD_RECOMMENDATIONS = {
    "liked is empty": search_pb2.RecommendRequest(collection="shop"),
    "liked is 51, must be 0 to 50": search_pb2.RecommendRequest(collection="shop", liked=[SOMETHING] * 51),
    "disliked is 51": search_pb2.RecommendRequest(collection="shop", liked=[SOMETHING], disliked=[SOMETHING] * 51),
    r"liked\[0\]\.product_id has 0 bytes": search_pb2.RecommendRequest(
        collection="shop", liked=[common_pb2.PointKey()]
    ),
    "k is 1001": search_pb2.RecommendRequest(collection="shop", liked=[SOMETHING], k=1001),
    r"exclude_product_ids\[0\] has 0 bytes": search_pb2.RecommendRequest(
        collection="shop", liked=[SOMETHING], exclude_product_ids=[""]
    ),
}


async def test_bad_requests_are_refused_before_anyone_is_asked(tmp_path):
    async with gateway(tmp_path) as (_, address, _), grpc.aio.insecure_channel(address) as channel:
        stub = search_pb2_grpc.VisualSearchStub(channel)
        for told, request in BAD_REQUESTS.items():
            with pytest.raises(grpc.RpcError, match=told) as caught:
                await stub.Search(request)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, told
            assert from_rpc_error(caught.value).violations, told
        for told, request in BAD_RECOMMENDATIONS.items():
            with pytest.raises(grpc.RpcError, match=told) as caught:
                await stub.Recommend(request)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, told
            assert from_rpc_error(caught.value).violations, told
        with pytest.raises(grpc.RpcError, match="image is empty") as caught:
            await stub.Recognize(search_pb2.RecognizeRequest(collection="shop"))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_oversized_message_is_refused_with_limit_and_size(tmp_path):
    async with gateway(tmp_path, MAX_MESSAGE_BYTES=2**20) as (_, address, _), AsyncVitrine(address) as client:
        with pytest.raises(Exception, match=r"(?i)max_message_bytes: .*larger than max \(\d+ vs\. 1048576\)") as caught:
            await client.search("shop", image=bytes(2**20 + 1))
        assert type(caught.value).__name__ == "TooLargeError"


async def test_sigterm_says_not_serving_first_finishes_what_is_in_flight_and_exits_0(tmp_path):
    async with hung_embedder() as embedder:
        settings = {"EMBEDDER": embedder, "DEFAULT_DEADLINE_SECONDS": 2, "DRAIN_DELAY_SECONDS": 0.5}
        async with gateway(tmp_path, **settings) as (supervisor, address, _):
            process = supervisor.processes["gateway"].process
            async with grpc.aio.insecure_channel(address) as channel, AsyncVitrine(address) as client:
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == SERVING
                in_flight = asyncio.ensure_future(client.search("shop", image=b"x"))
                await asyncio.sleep(0.2)
                process.send_signal(signal.SIGTERM)
                assert (await watch.read()).status == NOT_SERVING
                assert process.returncode is None
                assert not in_flight.done()
                # It gets its own answer (its deadline passes), not a broken connection.
                with pytest.raises(DeadlineError):
                    await in_flight
                assert await asyncio.wait_for(process.wait(), 30) == 0
        assert '"event": "stopped"' in (tmp_path / "logs" / "gateway.log").read_text()


def start_failing(**environment):
    return subprocess.run(
        [sys.executable, "-m", "services.gateway"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients'}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_bad_settings_and_taken_ports_stop_the_start_with_one_clear_line():
    outcome = start_failing(VITRINE_GATEWAY_PORT="0")
    assert outcome.returncode == 2
    assert "bad gateway settings" in outcome.stderr
    assert "port" in outcome.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = start_failing(VITRINE_GATEWAY_PORT=str(port))
        assert outcome.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}" in outcome.stderr
        free = Ports.free(1)
        outcome = start_failing(VITRINE_GATEWAY_PORT=str(free.gateway), VITRINE_GATEWAY_METRICS_PORT=str(port))
        assert outcome.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_bad_calibration_stops_the_start(tmp_path):
    free = Ports.free(1)
    ports = {
        "VITRINE_GATEWAY_PORT": str(free.gateway),
        "VITRINE_GATEWAY_METRICS_PORT": str(free.metrics[free.gateway]),
        "VITRINE_GATEWAY_HTTP_PORT": "0",
    }
    (tmp_path / "shop.calibration.json").write_text('{"format": "vitrine-calibration/0"}')
    for folder, told in ((tmp_path, "shop.calibration.json"), (tmp_path / "nowhere", "nowhere is not a folder")):
        outcome = start_failing(**ports, VITRINE_GATEWAY_CALIBRATION_DIR=str(folder))
        assert outcome.returncode == 2
        assert "calibration_dir" in outcome.stderr
        assert told in outcome.stderr
        assert "Traceback" not in outcome.stderr
