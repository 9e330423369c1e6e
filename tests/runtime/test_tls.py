"""Certificates of a running service: checked at start, shown to callers, replaced without a restart."""

import asyncio
import os
import re
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from prometheus_client import REGISTRY

from services.runtime.settings import SettingsError
from services.runtime.tls import ServerTls
from tests.certificates import Authority
from vitrine import Credentials, Tls
from vitrine.channels import open_channel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


def shown(port, alpn="h2"):
    """Returns the certificate that a handshake from scratch is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    with socket.create_connection(("127.0.0.1", port), 20) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True)


def first_der(path):
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(path.read_text().partition(end)[0] + end)


async def count(channel):
    return (await indexer_pb2_grpc.IndexerStub(channel).Count(indexer_pb2.CountRequest(), timeout=20)).points


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_certificate_is_replaced_while_connections_live_on(tmp_path, example_settings, running):
    authority = Authority(tmp_path)
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    certificate, key = authority.issue(expires=soon)
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key)
    trusting = Credentials(Tls(authority.file))
    async with running(settings):
        async with open_channel(f"127.0.0.1:{settings.port}", trusting) as old:
            assert await count(old) == 7
            before = await asyncio.to_thread(shown, settings.port)
            assert before == first_der(certificate)
            assert REGISTRY.get_sample_value("vitrine_tls_certificate_expires_timestamp_seconds") == soon.timestamp()

            authority.issue()

            async def replaced():
                return await asyncio.to_thread(shown, settings.port) == first_der(certificate)

            await until(replaced)
            assert first_der(certificate) != before
            assert REGISTRY.get_sample_value("vitrine_tls_certificate_expires_timestamp_seconds") > soon.timestamp()
            assert await count(old) == 7
        async with open_channel(f"127.0.0.1:{settings.port}", trusting) as new:
            assert await count(new) == 7
        with pytest.raises(grpc.aio.AioRpcError):
            async with open_channel(f"127.0.0.1:{settings.port}") as plain:
                await count(plain)


async def test_a_bad_replacement_changes_nothing_and_is_counted(tmp_path, example_settings, running):
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key)

    def failures():
        labels = {"secret": "tls", "result": "failed"}
        return REGISTRY.get_sample_value("vitrine_secret_reloads_total", labels) or 0

    async with running(settings):
        good, at_start = first_der(certificate), failures()
        certificate.write_text("half a certifi")

        async def noticed():
            return failures() > at_start

        await until(noticed)
        assert await asyncio.to_thread(shown, settings.port) == good
        authority.issue()

        async def replaced():
            return await asyncio.to_thread(shown, settings.port) == first_der(certificate)

        await until(replaced)


async def test_a_hang_up_takes_up_the_certificate_at_once(tmp_path, example_settings, running, monkeypatch):
    monkeypatch.setattr("services.runtime.secrets._LOOK_SECONDS", 3_600)
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key)
    async with running(settings):
        authority.issue()
        # Until it serves, a signal finds nobody who waits for it.
        async with open_channel(f"127.0.0.1:{settings.port}", Credentials(Tls(authority.file))) as channel:
            await count(channel)
        os.kill(os.getpid(), signal.SIGHUP)

        async def replaced():
            return await asyncio.to_thread(shown, settings.port) == first_der(certificate)

        await until(replaced)


async def test_the_authority_of_callers_is_replaced_too(tmp_path, example_settings, running):
    server, first, second = Authority(tmp_path), Authority(tmp_path), Authority(tmp_path)
    certificate, key = server.issue()
    callers = tmp_path / "callers.pem"
    callers.write_bytes(first.file.read_bytes())
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=callers)
    one, two = (Credentials(Tls(server.file, *each.issue(f"client{id(each)}", ("app",)))) for each in (first, second))

    async def gets_in(credentials):
        async with open_channel(f"127.0.0.1:{settings.port}", credentials) as channel:
            try:
                return await count(channel) == 7
            except grpc.aio.AioRpcError:
                return False

    async with running(settings):
        assert await gets_in(one)
        assert not await gets_in(two)
        assert not await gets_in(Credentials(Tls(server.file)))
        callers.write_bytes(second.file.read_bytes())
        await until(lambda: gets_in(two))
        assert not await gets_in(one)


async def test_an_http_port_follows_too(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    tls = ServerTls(certificate, key)

    async def answer(reader, writer):
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.http_context()) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(shown, port, "http/1.1") == first_der(certificate)
        authority.issue()
        tls.reload()
        assert await asyncio.to_thread(shown, port, "http/1.1") == first_der(certificate)


def test_files_that_cannot_work_stop_the_start(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    _, other_key = authority.issue("other")
    expired, expired_key = authority.issue("expired", expires=datetime.now(UTC) - timedelta(days=1))
    missing, nonsense = tmp_path / "missing", tmp_path / "nonsense"
    nonsense.write_text("no PEM at all")
    for files, told in (
        ((missing, key), "tls_cert_file .*missing: No such file"),
        ((certificate, missing), "tls_key_file .*missing: No such file"),
        ((certificate, key, missing), "tls_client_ca_file .*missing: No such file"),
        ((nonsense, key), "tls_cert_file .*: no certificate in it"),
        ((certificate, nonsense), "is no key of"),
        ((certificate, other_key), "is no key of"),
        ((certificate, key, nonsense), "tls_client_ca_file .*nonsense"),
        ((expired, expired_key), "tls_cert_file .*: expired at"),
    ):
        with pytest.raises(SettingsError, match=told):
            ServerTls(*files)


@pytest.mark.parametrize("given", [{"tls_cert_file"}, {"tls_key_file"}, {"tls_client_ca_file"}])
async def test_half_of_tls_is_not_plain_text(tmp_path, example_settings, running, given):
    certificate, key = Authority(tmp_path).issue()
    files = {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": certificate}
    with pytest.raises(SettingsError, match=re.escape("TLS needs both tls_cert_file and tls_key_file")):
        async with running(example_settings(**{name: files[name] for name in given})):
            pass
