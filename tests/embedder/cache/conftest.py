import pytest

from tests.embedder.cache.redis_server import BINARY, RedisServer


@pytest.fixture
def make_redis(tmp_path):
    """Starts real Redis servers and stops them after the test."""
    if BINARY is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
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
