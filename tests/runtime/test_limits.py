"""What one caller can take of a service's gRPC port is bounded: metadata, connections, calls on one of them."""

import asyncio
import socket
import ssl
import warnings

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime.settings import SettingsError, load_settings
from tests.certificates import Authority
from tests.runtime.conftest import Example, ExampleSettings
from vitrine.channels import open_channel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class Patient(Example):
    """Answers a call when it is let go."""

    def __init__(self):
        super().__init__()
        self.release = asyncio.Event()
        self.inside = 0

    async def Count(self, request, context):
        self.inside += 1
        await self.release.wait()
        return indexer_pb2.CountResponse(points=7)


def count(channel, **options):
    return indexer_pb2_grpc.IndexerStub(channel).Count(indexer_pb2.CountRequest(), timeout=30, **options)


async def test_metadata_over_its_limit_is_refused_and_under_it_is_not(example_settings, running):
    settings = example_settings(max_metadata_bytes=8 * 2**10)
    async with running(settings), open_channel(f"127.0.0.1:{settings.port}") as channel:
        assert (await count(channel, metadata=(("x-large", "x" * 7_000),))).points == 7
        # The limit is one number, not a range of chances.
        too_large = [count(channel, metadata=(("x-large", "x" * 8_300),)) for _ in range(20)]
        refusals = await asyncio.gather(*too_large, return_exceptions=True)
        assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (await count(channel)).points == 7


async def test_connections_over_their_limit_are_closed_and_a_free_place_is_used(example_settings, running):
    settings = example_settings(max_connections=3)

    async def connect():
        """Returns a connection that says hello as HTTP/2 does, and what it heard; nothing: it was closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        try:
            return writer, await asyncio.wait_for(reader.read(64), 20)
        except ConnectionResetError:
            return writer, b""

    async with running(settings):
        held = [await connect() for _ in range(3)]
        assert all(heard for _, heard in held)
        assert (await connect())[1] == b""
        held[0][0].close()
        async with asyncio.timeout(30):
            while not (again := await connect())[1]:
                await asyncio.sleep(0.05)
        for writer, _ in (*held, again):
            writer.close()


async def test_calls_over_the_limit_of_one_connection_wait_at_their_caller(example_settings, running):
    settings, service = example_settings(max_streams_per_connection=2), Patient()
    async with running(settings, service), open_channel(f"127.0.0.1:{settings.port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        calls = [asyncio.ensure_future(count(channel)) for _ in range(5)]
        async with asyncio.timeout(30):
            while service.inside < 2:
                await asyncio.sleep(0.01)
        # A call that came later on another connection gets in; those that wait do not.
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{settings.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other:
            late = asyncio.ensure_future(count(other))
            async with asyncio.timeout(30):
                while service.inside < 3:
                    await asyncio.sleep(0.01)
            assert service.inside == 3
            service.release.set()
            assert (await late).points == 7
        assert [each.points for each in await asyncio.gather(*calls)] == [7] * 5


async def test_a_connection_ends_at_its_age_and_calls_go_on_over_the_next(example_settings, running):
    settings = example_settings(max_connection_age_seconds=1)
    async with running(settings) as service, open_channel(f"127.0.0.1:{settings.port}") as channel:
        async with asyncio.timeout(30):
            while len(service.connections) < 2:
                assert (await count(channel)).points == 7
                await asyncio.sleep(0.02)


async def test_a_caller_who_starts_no_handshake_is_let_go(tmp_path, example_settings, running, monkeypatch):
    monkeypatch.setattr("services.runtime.server._HANDSHAKE_MS", 300)
    certificate, key = Authority(tmp_path).issue()
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key)
    async with running(settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_old_tls_is_refused(tmp_path, example_settings, running):
    certificate, key = Authority(tmp_path).issue()
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key)

    def connect():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():  # that it is old is the point
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", settings.port), 20) as plain, context.wrap_socket(plain):
            pass

    async with running(settings):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.to_thread(connect)


async def test_health_has_a_plain_port_of_its_own_that_serves_nothing_else(tmp_path, example_settings, running):
    certificate, key = Authority(tmp_path).issue()
    spare = example_settings()
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key, health_port=spare.port)
    async with running(settings), grpc.aio.insecure_channel(f"127.0.0.1:{spare.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "vitrine.v1.Indexer"):
            answer = await check(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True, timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await count(channel)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("on", [True, False])
async def test_reflection_can_be_switched_off(example_settings, running, on):
    settings = example_settings(reflection=on)
    async with running(settings), open_channel(f"127.0.0.1:{settings.port}") as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        if on:
            names = [each.name for each in (await call.read()).list_services_response.service]
            assert "vitrine.v1.Indexer" in names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_metadata_bytes", 1),
        ("max_connections", 0),
        ("max_streams_per_connection", 0),
        ("max_connection_idle_seconds", 0),
        ("max_connection_age_seconds", -1),
    ],
)
def test_limits_that_cannot_work_stop_the_start(name, value):
    with pytest.raises(SettingsError, match=name):
        load_settings(ExampleSettings, port=1, **{name: value})
