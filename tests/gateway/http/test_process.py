"""HTTP inside the gateway's process: limits, deadlines, admission, drain, and what cannot start."""

import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.request import urlopen

import grpc
import pytest
import requests

from services.local.stack import Ports
from tests.gateway.http.conftest import lone_gateway, problem
from tests.gateway.test_process import start_failing
from vitrine.v1 import embedder_pb2_grpc


class Waiting(embedder_pb2_grpc.EmbedderServicer):
    """Takes calls and answers none; notes when one is there, and when its caller has left."""

    def __init__(self):
        self.called = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self.deadlines = []

    def Embed(self, request, context):
        context.add_callback(self.left.release)
        self.deadlines.append(context.time_remaining())
        self.called.release()
        while context.is_active():
            time.sleep(0.01)


@contextmanager
def waiting_embedder():
    waiting = Waiting()
    server = grpc.server(ThreadPoolExecutor(8))
    embedder_pb2_grpc.add_EmbedderServicer_to_server(waiting, server)
    waiting.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield waiting
    finally:
        server.stop(0)


def search(site, **options):
    fields = {"image": ("x.jpg", b"never looked at here"), "collection": (None, "shop")}
    return requests.post(site.address + "/v1/search", files=fields, timeout=30, **options)


def test_a_gateway_alone_tells_what_is_away(tmp_path):
    with lone_gateway(tmp_path) as site:
        assert site.get("/healthz").status_code == 200
        status = site.get("/v1/status").json()
        assert not any(each["healthy"] for each in status["components"])
        assert status["collections"] == []
        told = problem(search(site), 503, "UNAVAILABLE")
        assert "embedder" in told["detail"]
        nothing = site.post("/v1/search", files={"image": b"x"})
        assert "there is none yet" in problem(nothing, 400, "INVALID_ARGUMENT")["detail"]
        metrics = urlopen(f"http://127.0.0.1:{site.metrics_port}/metrics").read().decode()
    assert re.search(r'vitrine_http_requests_total{method="POST",route="/v1/search",status="503"} 1', metrics)
    assert 'vitrine_http_request_seconds_count{route="/v1/status"}' in metrics


def test_bodies_and_heads_over_their_limit_are_refused(tmp_path):
    with lone_gateway(tmp_path, MAX_MESSAGE_BYTES=2**20) as site:
        told = problem(site.search(bytes(2**20)), 413, "RESOURCE_EXHAUSTED")
        assert re.search(r"max_message_bytes: the body has \d+ bytes, at most 1048576", told["detail"])

        def pieces():
            yield b"--x\r\ncontent-disposition: form-data; name=a; filename=b\r\n\r\n"
            for _ in range(40):
                yield bytes(2**16)

        headers = {"content-type": "multipart/form-data; boundary=x"}
        unannounced = requests.post(site.address + "/v1/search", data=pieces(), headers=headers, timeout=30)
        assert "over 1048576 bytes" in problem(unannounced, 413, "RESOURCE_EXHAUSTED")["detail"]
        with socket.create_connection(site.address.removeprefix("http://").split(":")) as connection:
            head = b"GET / HTTP/1.1\r\nhost: x\r\nx-much: "
            connection.sendall(head + b"y" * (32769 - len(head)))  # one too many, and nothing left to be read
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in answer
        assert b"head of a request may have 32768 bytes" in answer
        with socket.create_connection(site.address.removeprefix("http://").split(":")) as connection:
            connection.sendall(b"\x16\x03\x01 no http\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert site.get("/healthz").status_code == 200


@pytest.mark.parametrize("way", ["header", "field"])
def test_the_callers_deadline_travels_to_the_embedder(tmp_path, way):
    with waiting_embedder() as embedder, lone_gateway(tmp_path, EMBEDDER=embedder.address) as site:
        began = time.monotonic()
        if way == "header":
            answer = search(site, headers={"x-timeout-ms": "400"})
        else:
            answer = site.search(b"x", collection="shop", timeout_ms=400)
        problem(answer, 504, "DEADLINE_EXCEEDED")
        assert time.monotonic() - began < 5  # the gateway's own longest
        assert 0 < embedder.deadlines[0] <= 0.4


def test_who_hangs_up_is_not_worked_for(tmp_path):
    with waiting_embedder() as embedder, lone_gateway(tmp_path, EMBEDDER=embedder.address) as site:
        body = (
            b"--x\r\ncontent-disposition: form-data; name=image; filename=a\r\n\r\nphoto\r\n"
            b"--x\r\ncontent-disposition: form-data; name=collection\r\n\r\nshop\r\n--x--\r\n"
        )
        head = f"POST /v1/search HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        with socket.create_connection(site.address.removeprefix("http://").split(":")) as connection:
            connection.sendall(head.encode() + b"content-type: multipart/form-data; boundary=x\r\n\r\n" + body)
            assert embedder.called.acquire(timeout=20)
            began = time.monotonic()
        assert embedder.left.acquire(timeout=20)
        assert time.monotonic() - began < embedder.deadlines[0]  # it was cancelled, not late
        counted = r'vitrine_http_requests_total{method="POST",route="/v1/search",status="499"} 1'
        page = f"http://127.0.0.1:{site.metrics_port}/metrics"
        while not re.search(counted, urlopen(page).read().decode()):  # once the gateway has noticed, too
            assert time.monotonic() - began < 20
            time.sleep(0.05)


def test_http_and_grpc_share_their_places(tmp_path):
    settings = {"MAX_CONCURRENT_RPCS": 1}
    with (
        waiting_embedder() as embedder,
        lone_gateway(tmp_path, EMBEDDER=embedder.address, **settings) as site,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(search, site, headers={"x-timeout-ms": "4000"})
        assert embedder.called.acquire(timeout=20)
        refused = search(site)
        told = problem(refused, 429, "RESOURCE_EXHAUSTED")
        assert refused.headers["retry-after"] == "1"
        assert "max_concurrent_rpcs" in told["detail"]
        assert site.get("/healthz").status_code == 200
        problem(first.result(), 504, "DEADLINE_EXCEEDED")


def test_sigterm_says_not_serving_first_and_finishes_what_is_in_flight(tmp_path):
    settings = {"DEFAULT_DEADLINE_SECONDS": 3, "DRAIN_DELAY_SECONDS": 1}
    with waiting_embedder() as embedder, lone_gateway(tmp_path, EMBEDDER=embedder.address, **settings) as site:
        process = site.supervisor.processes["gateway"].process
        with ThreadPoolExecutor(1) as pool:
            in_flight = pool.submit(search, site)
            assert embedder.called.acquire(timeout=20)
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 20
            while (health := requests.get(site.address + "/healthz", timeout=10)).status_code == 200:
                assert time.monotonic() < until
            assert (health.status_code, health.json()) == (503, {"status": "not serving"})
            problem(in_flight.result(), 504, "DEADLINE_EXCEEDED")
        assert site.do(process.wait()) == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(site.address + "/healthz", timeout=10)


def test_what_cannot_work_stops_the_start_with_one_clear_line(tmp_path):
    ports = Ports.free(1)
    settings = {
        "VITRINE_GATEWAY_PORT": str(ports.gateway),
        "VITRINE_GATEWAY_METRICS_PORT": str(ports.metrics[ports.gateway]),
    }
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.http))
        taken.listen()
        outcome = start_failing(**settings, VITRINE_GATEWAY_HTTP_PORT=str(ports.http))
    assert (outcome.returncode, "Traceback" in outcome.stderr) == (2, False)
    assert f"cannot listen on 127.0.0.1:{ports.http} (http_port)" in outcome.stderr
    settings["VITRINE_GATEWAY_IMAGE_ROOTS"] = str(tmp_path / "nowhere")
    outcome = start_failing(**settings, VITRINE_GATEWAY_HTTP_PORT=str(ports.http))
    assert (outcome.returncode, "Traceback" in outcome.stderr) == (2, False)
    assert f"image_roots: {tmp_path / 'nowhere'} is no folder" in outcome.stderr


def test_without_a_port_there_is_no_http(tmp_path):
    with lone_gateway(tmp_path, HTTP_PORT=0) as site, pytest.raises(requests.ConnectionError):
        site.get("/healthz")
