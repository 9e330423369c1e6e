import shutil
import subprocess

import pytest

from tests.conftest import missing
from tests.embedder.cache.redis_server import BINARY, RedisServer


@pytest.fixture
def make_redis(tmp_path):
    """Starts real Redis servers and stops them after the test."""
    if BINARY is None:
        missing("redis-server")
    started = []

    def make(*options, tls=False):
        server = RedisServer(tmp_path, *options, tls=tls)
        started.append(server)
        return server.start()

    yield make
    for server in started:
        server.kill()


@pytest.fixture
def redis(make_redis):
    return make_redis()


@pytest.fixture
def certificate(tmp_path):
    """Files of a certificate for 127.0.0.1 that vouches for itself, and of its key."""
    if shutil.which("openssl") is None:
        missing("openssl")
    files = [str(tmp_path / name) for name in ("certificate.pem", "key.pem")]
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files
