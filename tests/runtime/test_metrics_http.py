"""The metrics endpoint: what it serves, to whom, and that nobody can occupy it."""

import hashlib
import socket
import ssl
import urllib.error
import urllib.request

import pytest

from services.runtime.guard import Guard
from services.runtime.identities import Directory, Identity, Scope
from services.runtime.metrics_http import _MAX_CONNECTIONS, MetricsServer
from services.runtime.settings import SettingsError
from services.runtime.tls import ServerTls
from tests.certificates import Authority
from tests.watching import scrape

SCRAPER, READER = "a-token-of-the-scraper", "a-token-of-a-reader"


def directory():
    return Directory(
        [
            (hashlib.sha256(token.encode()).digest(), Identity(token[-7:], frozenset([scope])))
            for token, scope in ((SCRAPER, Scope.METRICS), (READER, Scope.READ))
        ]
    )


@pytest.fixture
def serve():
    servers = []

    def start(guard=None, context=None):
        server = MetricsServer("127.0.0.1", 0, guard or Guard(), context)
        servers.append(server)
        return server._server.server_port

    yield start
    for server in servers:
        server.close()


def get(port, path="/metrics", token=None, context=None):
    scheme = "https" if context else "http"
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_and_nothing_else(serve):
    port = serve()
    status, page = get(port)
    assert (status, "# TYPE grpc_server_handled_total counter" in page) == (200, True)
    for path in ("/", "/metrics/", "/../etc/passwd", "/favicon.ico"):
        assert get(port, path)[0] == 404


def test_where_callers_are_known_the_scope_metrics_is_needed(serve):
    port = serve(Guard(directory()))
    assert get(port, token=SCRAPER)[0] == 200
    assert get(port)[0] == 401
    assert get(port, token="of-nobody-at-all-0")[0] == 401
    status, told = get(port, token=READER)
    assert (status, told) == (403, "/metrics needs the scope metrics; -reader has read\n")


def test_over_tls(serve, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    port = serve(context=ServerTls(certificate, key).http_context())
    context = ssl.create_default_context(cafile=authority.file)
    with socket.create_connection(("127.0.0.1", port)):  # says nothing, and is in nobody's way
        assert get(port, context=context)[0] == 200
    with pytest.raises(urllib.error.URLError):
        get(port, context=ssl.create_default_context())
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        get(port)


def test_mute_callers_cannot_take_more_than_their_places(serve):
    port = serve()
    mute = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(_MAX_CONNECTIONS)]
    assert get_or_none(port) is None
    for each in mute:
        each.close()
    for _ in range(100):
        if get_or_none(port):
            break
    else:
        pytest.fail("no place became free")


def get_or_none(port):
    try:
        return get(port)[0]
    except (urllib.error.URLError, ConnectionError):
        return None


async def test_a_service_on_loopback_serves_them_plainly_even_where_its_port_speaks_tls(
    tmp_path, example_settings, running
):
    certificate, key = Authority(tmp_path).issue()
    settings = example_settings(tls_cert_file=certificate, tls_key_file=key)
    async with running(settings):
        assert "vitrine_tls_certificate_expires_timestamp_seconds" in await scrape(settings.metrics_port)


async def test_beyond_loopback_they_need_what_the_service_needs(example_settings, running):
    with pytest.raises(SettingsError, match=r"metrics_host = 0\.0\.0\.0 is open to other machines"):
        async with running(example_settings(metrics_host="0.0.0.0")):
            pass
    settings = example_settings(metrics_host="0.0.0.0", insecure_metrics=True)
    async with running(settings):
        assert "grpc_server_started_total" in await scrape(settings.metrics_port)
