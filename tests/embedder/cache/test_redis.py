"""The shared cache on a real Redis: two replicas, restarts, lies and silence."""

import asyncio
import time
from contextlib import asynccontextmanager
from random import Random

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from services.embedder.cache.cache import Source, VectorCache
from services.embedder.cache.codec import encode
from services.embedder.crop import Crop
from services.embedder.priority import Priority
from services.embedder.settings import EmbedderSettings
from services.local.ports import free_ports
from tests.embedder.cache.entries import Clock, Computation, Counted, assert_same, key, settle, until, vector
from tests.embedder.cache.redis_server import impostor
from vitrine.errors import DeadlineError, InvalidArgumentError

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
# No test waits this long: where one is decided by how long something took, it is by waiting for ever.
PATIENT = {"cache_redis_timeout_seconds": 5.0, "cache_redis_lock_seconds": 30.0}


class Pauses:
    """A sleep that ends when the test says so, or at once where it is no retry of a connection."""

    def __init__(self):
        self.retries = []
        self._wake = asyncio.Event()

    async def __call__(self, seconds):
        if seconds < 0.5:  # a look for another replica's answer, or the first retry
            await asyncio.sleep(seconds / 10)
            return
        self.retries.append(seconds)
        self._wake.clear()
        await self._wake.wait()

    def wake(self):
        self._wake.set()


@asynccontextmanager
async def replica(port, *, url=None, sleep=asyncio.sleep, clock=None, **settings):
    values = PATIENT | {"cache_memory_bytes": 0, "cache_redis_url": url or f"redis://127.0.0.1:{port}"} | settings
    cache = VectorCache.from_settings(EmbedderSettings(**values), sleep=sleep, **({"clock": clock} if clock else {}))
    await cache.start()
    try:
        yield cache
    finally:
        await cache.close()


async def written(cache):
    """Returns once all that was told to Redis before has been answered."""
    assert await cache._link.ask((b"PING",)) == [b"PONG"]


@asynccontextmanager
async def inspector(port):
    async with redis.asyncio.Redis(port=port) as client:
        yield client


def ready(answer=None):
    computation = Computation(answer)
    computation.release()
    return computation


def ask(cache, computation, priority=INTERACTIVE, number=0):
    return asyncio.create_task(cache.get_or_compute(key(number), priority, computation))


async def test_what_one_replica_computed_another_finds(redis):
    lookups = Counted("vitrine_embedder_cache_lookups_total")
    async with replica(redis.port) as one, replica(redis.port, cache_memory_bytes=2**20) as two:
        seen = vector(1, subject=Crop(0.25, 0.1, 0.75, 0.6))
        assert (await one.get_or_compute(key(), INTERACTIVE, ready(seen)))[1] is Source.COMPUTED
        await written(one)
        found, source = await two.get_or_compute(key(), BULK, ready())
        assert source is Source.REDIS
        assert_same(found, seen)
        assert (await two.get_or_compute(key(), BULK, ready()))[1] is Source.MEMORY
        assert (await two.get_or_compute(key(1), BULK, ready()))[1] is Source.COMPUTED
    assert (lookups(result="miss"), lookups(result="hit_redis"), lookups(result="hit_memory")) == (2, 1, 1)


async def test_entries_expire_and_hold_nothing_but_the_vector(redis):
    async with replica(redis.port, cache_ttl_seconds=3600) as cache, inspector(redis.port) as client:
        await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
        await written(cache)
        name = b"vitrine:vector:" + key().digest.hex().encode()
        assert sorted(await client.keys()) == [name, name + b":interactive"]
        assert await client.get(name) == encode(vector(1), key())
        assert 3_500_000 < await client.pttl(name) <= 3_600_000
        assert 0 < await client.pttl(name + b":interactive") <= 30_000


async def test_two_replicas_under_load_compute_each_image_once(redis):
    async with replica(redis.port) as one, replica(redis.port) as two:
        computations = [Computation(vector(number)) for number in range(20)]
        tasks = [
            ask(cache, computations[number], number=number)
            for _ in range(5)
            for number in range(20)
            for cache in (one, two)
        ]
        for computation in computations:
            await computation.running()
        await settle()
        for computation in computations:
            computation.release()
        answers = await asyncio.gather(*tasks)
        for place, (found, _) in enumerate(answers):
            assert_same(found, vector(place // 2 % 20))
        assert [computation.begun for computation in computations] == [1] * 20
        assert [source for _, source in answers].count(Source.COMPUTED) == 20
        assert [source for _, source in answers].count(Source.REDIS) == 20


@pytest.mark.parametrize("error", [None, InvalidArgumentError("not a picture")])
async def test_a_replica_that_gives_up_lets_the_other_compute_at_once(redis, error):
    async with replica(redis.port) as one, replica(redis.port) as two:
        first, second = Computation(), ready(vector(2))
        giving_up = ask(one, first)
        await first.running()
        waiting = ask(two, second)
        await settle()
        assert second.begun == 0
        first.release(error) if error else giving_up.cancel()
        with pytest.raises(InvalidArgumentError if error else asyncio.CancelledError):
            await giving_up
        found, source = await waiting  # far sooner than the lock of 30 s expires, or the test does
        assert source is Source.COMPUTED
        assert_same(found, vector(2))


async def test_a_replica_that_dies_holds_the_others_up_no_longer_than_its_lock_lives(redis):
    async with replica(redis.port, cache_redis_lock_seconds=0.05) as one, replica(redis.port) as two:
        first, second = Computation(), ready(vector(2))
        dying = ask(one, first)
        await first.running()
        assert (await ask(two, second))[1] is Source.COMPUTED
        dying.cancel()


async def test_waiting_for_another_replica_is_bounded_even_where_its_lock_is_not(redis):
    async with replica(redis.port, cache_redis_lock_seconds=0.05) as cache, inspector(redis.port) as client:
        await client.set(b"vitrine:vector:" + key().digest.hex().encode() + b":interactive", b"1")  # never expires
        assert (await ask(cache, ready()))[1] is Source.COMPUTED


async def test_a_deadline_ends_the_wait_for_another_replica(redis):
    clock = Clock()
    async with (
        replica(redis.port, clock=clock, sleep=clock.sleep) as cache,
        inspector(redis.port) as client,
    ):
        await client.set(b"vitrine:vector:" + key().digest.hex().encode() + b":interactive", b"1")
        began = clock.now
        await cache.get_or_compute(key(), INTERACTIVE, ready(), deadline=began + 1.5)
        assert clock.now == began + 1.5


async def test_interactive_work_does_not_wait_for_bulk_of_another_replica(redis):
    async with replica(redis.port) as one, replica(redis.port) as two:
        slow = Computation(vector(1))
        catalogue = ask(one, slow, BULK)
        await slow.running()
        assert (await ask(two, ready(vector(1)), INTERACTIVE))[1] is Source.COMPUTED
        await written(two)
        assert (await ask(two, ready(), BULK))[1] is Source.REDIS
        assert not catalogue.done()
        slow.release()
        await catalogue


async def test_a_redis_that_is_killed_costs_hits_only_and_comes_back_by_itself(redis):
    failures = Counted("vitrine_embedder_cache_redis_failures_total")
    unanswered = Counted("vitrine_embedder_cache_redis_unanswered_total")
    pauses = Pauses()
    with capture_logs() as logs:
        async with replica(redis.port, sleep=pauses) as cache:
            await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
            await written(cache)
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.REDIS

            redis.kill()
            for _ in range(100):
                found, source = await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
                assert source is Source.COMPUTED
                assert_same(found, vector(1))
            await until(lambda: pauses.retries)
            sent, skipped = failures(), unanswered(operation="read", reason="down")
            for _ in range(100):
                assert (await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1))))[1] is Source.COMPUTED
            assert failures(reason="connection") == failures() == sent  # nothing was tried on behalf of a request
            assert unanswered(operation="read", reason="down") == skipped + 100

            pauses.wake()  # a probe that finds it still dead
            await until(lambda: len(pauses.retries) == 2)
            assert pauses.retries == [1.0, 2.0]

            redis.start()
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED  # not probed yet
            pauses.wake()
            await until(lambda: cache._link.up)
            await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
            await written(cache)
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.REDIS
    assert [line["event"] for line in logs] == [
        "the shared cache answers",
        "the shared cache does not answer; images are embedded without it",
        "the shared cache answers",
    ]
    assert (logs[1]["reason"], logs[1]["log_level"]) == ("connection", "warning")


async def test_requests_in_flight_when_redis_is_killed_are_computed(redis):
    async with replica(redis.port, sleep=Pauses()) as cache:
        computations = [Computation(vector(number)) for number in range(50)]
        tasks = [ask(cache, each, number=number) for number, each in enumerate(computations)]
        await asyncio.sleep(0)
        redis.kill()
        for each in computations:
            each.release()
        answers = await asyncio.gather(*tasks)
        assert {source for _, source in answers} == {Source.COMPUTED}
        assert [each.begun for each in computations] == [1] * 50


async def test_a_restart_between_two_requests_is_mended_without_a_word(redis):
    with capture_logs() as logs:
        async with replica(redis.port, sleep=Pauses()) as cache:
            redis.kill()
            redis.start()
            await cache.get_or_compute(key(), INTERACTIVE, ready())
            await until(lambda: cache._link.up)
            await cache.get_or_compute(key(), INTERACTIVE, ready())
            await written(cache)
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.REDIS
    assert [line["event"] for line in logs] == ["the shared cache answers"]


async def test_a_service_starts_without_its_redis():
    with capture_logs() as logs:
        async with replica(free_ports(1)[0], sleep=Pauses()) as cache:
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
    assert [line["reason"] for line in logs] == ["connection"]


DAMAGE = {
    "length": lambda good: good[:-1],
    "format": lambda good: b"\0" * len(good),
    "version": lambda good: good[:3] + b"\7" + good[4:],
    "shape": lambda good: good[:4] + b"\7" + good[5:],
    "checksum": lambda good: good[:-1] + bytes([good[-1] ^ 1]),
}


@pytest.mark.parametrize("reason", DAMAGE)
async def test_a_damaged_value_is_a_counted_miss_and_is_overwritten(redis, reason):
    invalid = Counted("vitrine_embedder_cache_invalid_total")
    async with replica(redis.port) as cache, inspector(redis.port) as client:
        await client.set(b"vitrine:vector:" + key().digest.hex().encode(), DAMAGE[reason](encode(vector(1), key())))
        found, source = await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
        assert source is Source.COMPUTED
        assert_same(found, vector(1))
        assert invalid(origin="redis", reason=reason) == invalid() == 1
        await written(cache)
        assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.REDIS


async def test_of_a_huge_value_only_a_little_is_read(redis):
    invalid = Counted("vitrine_embedder_cache_invalid_total")
    async with replica(redis.port) as cache, inspector(redis.port) as client:
        await client.set(b"vitrine:vector:" + key().digest.hex().encode(), encode(vector(), key()) + bytes(50_000_000))
        assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
        assert (await client.info("stats"))["total_net_output_bytes"] < 1_000_000
    assert invalid(origin="redis", reason="length") == 1


async def test_another_type_under_the_key_is_a_refusal_not_an_error(redis):
    failures = Counted("vitrine_embedder_cache_redis_failures_total")
    async with replica(redis.port) as cache, inspector(redis.port) as client:
        await client.lpush(b"vitrine:vector:" + key().digest.hex().encode(), b"x")
        with capture_logs() as logs:
            for _ in range(3):
                assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
                await written(cache)
                await client.delete(b"vitrine:vector:" + key().digest.hex().encode())
                await client.lpush(b"vitrine:vector:" + key().digest.hex().encode(), b"x")
        assert cache._link.up
    assert failures(reason="refused") == failures() >= 3
    assert [line["command"] for line in logs] == ["GETRANGE"]


async def test_a_full_redis_refuses_writes_and_nothing_waits_for_it(make_redis):
    server = make_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    async with replica(server.port) as cache:
        with capture_logs() as logs:
            for number in range(5):
                assert (await cache.get_or_compute(key(number), BULK, ready()))[1] is Source.COMPUTED
                await written(cache)
    assert [(line["command"], line["error"]) for line in logs] == [("SET", "OutOfMemoryError")]


async def test_a_redis_that_never_answers_is_bounded_and_then_left_alone():
    async def silent(reader, writer):
        await reader.read()

    failures = Counted("vitrine_embedder_cache_redis_failures_total")
    pauses = Pauses()
    async with impostor(silent) as port:
        with capture_logs() as logs:
            async with replica(port, sleep=pauses, cache_redis_timeout_seconds=0.02) as cache:
                for _ in range(20):
                    assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
                assert failures(reason="timeout") == failures() == 2  # the first try and its retry
    assert [(line["reason"], line["log_level"]) for line in logs] == [("timeout", "warning")]


async def test_a_redis_that_falls_silent_costs_one_bounded_wait():
    silent = asyncio.Event()

    async def falls_silent(reader, writer):
        while await reader.readline():
            if b"GETRANGE" in await reader.readuntil(b"0\r\n$1\r\n0\r\n") and not silent.is_set():
                writer.write(b"$0\r\n\r\n")

    unanswered = Counted("vitrine_embedder_cache_redis_unanswered_total")
    async with impostor(falls_silent) as port, replica(port, sleep=Pauses(), cache_redis_timeout_seconds=0.05) as cache:
        assert cache._link.up
        silent.set()
        tasks = [ask(cache, ready(), number=number) for number in range(20)]
        assert {source for _, source in await asyncio.gather(*tasks)} == {Source.COMPUTED}
        await until(lambda: not cache._link.up)
        assert unanswered(operation="read") == 20  # each waited for its lookup only: no lock was asked for


REPLIES = {
    "not RESP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "another type": b":1\r\n",
    "too much": b"$0\r\n\r\n$0\r\n\r\n",
    "nested": b"*1\r\n" * 5000,
    "a length that is none": b"$x\r\n",
    "endless": b"$999999999999\r\n",
    "not a word": b"",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
async def test_a_server_that_talks_nonsense_makes_misses(reply):
    async def liar(reader, writer):
        while await reader.read(4096):
            writer.write(reply)
            if not reply:
                return

    async with impostor(liar) as port, replica(port, sleep=Pauses(), cache_redis_timeout_seconds=0.05) as cache:
        for _ in range(5):
            found, source = await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
            assert source is Source.COMPUTED
            assert_same(found, vector(1))


async def test_answers_to_other_questions_are_not_taken_for_ours():
    """What a connection does that is out of step, or a proxy that mixes clients up."""
    other = encode(vector(9), key(9))
    probed = asyncio.Event()

    async def crossed(reader, writer):
        while await reader.read(4096):
            writer.write(b"$%d\r\n%s\r\n" % (len(other), other) if probed.is_set() else b"$0\r\n\r\n")

    invalid = Counted("vitrine_embedder_cache_invalid_total")
    async with impostor(crossed) as port, replica(port, sleep=Pauses(), cache_redis_timeout_seconds=0.2) as cache:
        probed.set()
        found, source = await cache.get_or_compute(key(), INTERACTIVE, ready(vector(1)))
        assert source is Source.COMPUTED
        assert_same(found, vector(1))
    assert invalid(origin="redis", reason="checksum") == 1


async def test_after_an_answer_too_many_nothing_more_is_read_from_that_connection():
    other = encode(vector(9), key(9))
    probed = asyncio.Event()

    async def chatty(reader, writer):
        while await reader.read(4096):
            surplus = b"$%d\r\n%s\r\n" % (len(other), other) if probed.is_set() else b""
            writer.write(b"$0\r\n\r\n" + surplus)

    invalid = Counted("vitrine_embedder_cache_invalid_total")
    failures = Counted("vitrine_embedder_cache_redis_failures_total")
    async with impostor(chatty) as port, replica(port, sleep=Pauses()) as cache:
        probed.set()
        assert await cache._link.ask((b"GETRANGE", b"one", 0, 9)) == [b""]
        assert await cache._link.ask((b"GETRANGE", b"two", 0, 9)) is None
        await until(lambda: failures(reason="connection") >= 1)
    assert invalid() == 0


@pytest.mark.parametrize("user", ["", "default"])
async def test_a_wrong_password_makes_misses_and_one_clear_line(make_redis, user):
    server = make_redis("--requirepass", "rosebud")
    failures = Counted("vitrine_embedder_cache_redis_failures_total")
    with capture_logs() as logs:
        async with replica(server.port, url=f"redis://{user}:hunter2@127.0.0.1:{server.port}", sleep=Pauses()) as cache:
            for _ in range(5):
                assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
    assert [(line["reason"], line["hint"]) for line in logs] == [("auth", "check user and password of cache_redis_url")]
    assert failures(reason="auth") == failures() == 2
    assert "hunter2" not in str(logs)


async def test_the_right_password_works_and_is_in_no_log(make_redis, caplog):
    server = make_redis("--requirepass", "rose bud/@?")
    url = f"redis://:rose%20bud%2F%40%3F@127.0.0.1:{server.port}/3"
    with capture_logs() as logs, caplog.at_level(0):
        async with replica(server.port, url=url) as cache:
            await cache.get_or_compute(key(), INTERACTIVE, ready())
            await written(cache)
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.REDIS
            server.kill()
            await cache.get_or_compute(key(), INTERACTIVE, ready())
    assert "rose" not in f"{logs} {caplog.text}"


async def test_a_server_that_quotes_the_password_back_is_not_quoted(caplog):
    async def parrot(reader, writer):
        while heard := await reader.read(4096):
            words = " ".join(f"'{word.decode()}'" for word in heard.split(b"\r\n")[2::2])
            writer.write(f"-ERR unknown command, with args beginning with: {words}\r\n".encode())

    with capture_logs() as logs, caplog.at_level(0):
        async with (
            impostor(parrot) as port,
            replica(port, url=f"redis://:hunter2@127.0.0.1:{port}", sleep=Pauses()) as cache,
        ):
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
    assert [line["reason"] for line in logs] == ["refused"]
    assert "hunter2" not in f"{logs} {caplog.text}"


async def test_tls(make_redis, certificate):
    certificate_file, key_file = certificate
    server = make_redis(
        "--tls-cert-file", certificate_file, "--tls-key-file", key_file,
        "--tls-auth-clients", "no", "--requirepass", "rosebud", tls=True,
    )  # fmt: skip
    url = f"rediss://:rosebud@127.0.0.1:{server.port}"
    async with replica(server.port, url=f"{url}?ssl_ca_certs={certificate_file}") as cache:
        await cache.get_or_compute(key(), INTERACTIVE, ready())
        await written(cache)
        assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.REDIS
    with capture_logs() as logs:
        async with replica(server.port, url=url, sleep=Pauses()) as cache:  # a certificate nobody vouches for
            assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
    assert [line["reason"] for line in logs] == ["connection"]


async def test_writes_that_pile_up_are_dropped_and_counted(redis):
    unanswered = Counted("vitrine_embedder_cache_redis_unanswered_total")
    async with replica(redis.port) as cache:
        for number in range(300):  # without giving the connection a moment
            cache._store.put(key(number), encode(vector(number), key(number)))
        assert unanswered(operation="write", reason="full") == unanswered() == 300 - 256
        await written(cache)
        async with inspector(redis.port) as client:
            assert await client.dbsize() == 256
        cache._store.put(key(299), encode(vector(299), key(299)))
        await written(cache)
        assert (await cache.get_or_compute(key(299), BULK, ready()))[1] is Source.REDIS
        assert unanswered() == 300 - 256


async def test_a_connection_that_fails_on_and_off_is_used_ever_less():
    """Connects and answers its probe, and nothing else, every time."""

    async def flaky(reader, writer):
        await reader.readuntil(b"0\r\n$1\r\n0\r\n")
        writer.write(b"$0\r\n\r\n")
        await reader.read(1)

    pauses = Pauses()
    with capture_logs() as logs:
        async with impostor(flaky) as port, replica(port, sleep=pauses) as cache:
            for retries in range(6):
                await until(lambda: cache._link.up)
                assert (await cache.get_or_compute(key(), INTERACTIVE, ready()))[1] is Source.COMPUTED
                await until(lambda retries=retries: len(pauses.retries) == retries or cache._link.up)
                pauses.wake()
            assert pauses.retries[:4] == [1, 2, 4, 8]
    assert len(logs) <= 2 * len(pauses.retries) + 2


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_everybody_gets_the_right_vector_or_their_own_error(redis, seed):
    """Two replicas, hot images, callers that leave, deadlines, failing computations, and a Redis that is killed."""
    random = Random(seed)
    settings = {"cache_redis_lock_seconds": 0.05}

    def computing(number):
        async def compute():
            await asyncio.sleep(random.random() * 0.01)
            if random.random() < 0.1:
                raise InvalidArgumentError(f"{number}")
            return vector(number)

        return compute

    async def one_request(cache):
        number = min(int(random.expovariate(0.3)), 30)
        priority = random.choice([INTERACTIVE, BULK])
        deadline = time.monotonic() + 0.005 if random.random() < 0.1 else None
        task = asyncio.create_task(cache.get_or_compute(key(number), priority, computing(number), deadline))
        if random.random() < 0.2:
            await asyncio.sleep(random.random() * 0.01)
            task.cancel()
        try:
            found, source = await task
        except InvalidArgumentError as error:
            return "failed" if str(error) == str(number) else "another's error"
        except DeadlineError:
            return "expired" if deadline is not None else "another's deadline"
        except asyncio.CancelledError:
            return "cancelled"
        assert_same(found, vector(number))
        return source

    async with replica(redis.port, **settings) as one, replica(redis.port, cache_memory_bytes=5000, **settings) as two:
        outcomes = []
        for round_ in range(6):
            if round_ == 2:
                redis.kill()
            if round_ == 4:
                redis.start()
            outcomes += await asyncio.gather(*(one_request(random.choice([one, two])) for _ in range(200)))
        assert {*Source, "failed", "cancelled", "expired"} == set(outcomes)
        for cache in (one, two):
            assert len(cache._flights) == 0
            assert cache._link._writes == sum(order.answer is None for order in cache._link._orders)
