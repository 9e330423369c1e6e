"""The cache without Redis, as the pipeline calls it."""

import asyncio

import numpy as np
import pytest

from services.embedder.cache.cache import Source, VectorCache
from services.embedder.cache.vector import CachedVector
from services.embedder.priority import Priority
from services.embedder.settings import EmbedderSettings
from tests.embedder.cache.entries import DIM, Clock, Computation, Counted, assert_same, key, settle, vector
from vitrine.errors import InvalidArgumentError

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def cache(clock=None, **settings):
    return VectorCache.from_settings(EmbedderSettings(**settings), clock=clock or Clock())


def ready(answer=None):
    computation = Computation(answer)
    computation.release()
    return computation


async def test_an_image_seen_before_is_not_computed_again():
    lookups = Counted("vitrine_embedder_cache_lookups_total")
    hot, computation = cache(), ready(vector(1))
    found, source = await hot.get_or_compute(key(), INTERACTIVE, computation)
    again, second = await hot.get_or_compute(key(), BULK, computation)
    assert (source, second, computation.begun) == (Source.COMPUTED, Source.MEMORY, 1)
    assert_same(found, vector(1))
    assert_same(again, vector(1))
    assert (lookups(result="miss"), lookups(result="hit_memory"), lookups()) == (1, 1, 2)


async def test_what_is_given_out_cannot_be_changed_by_anyone():
    computed = vector(1)
    for source in (Source.COMPUTED, Source.MEMORY):
        hot = cache() if source is Source.COMPUTED else hot  # noqa: F821
        found, got = await hot.get_or_compute(key(), INTERACTIVE, ready(computed))
        assert got is source
        with pytest.raises(ValueError, match="read-only"):
            found.embedding[0] = 0
    computed.embedding[:] = 0
    found, _ = await hot.get_or_compute(key(), INTERACTIVE, ready())
    assert_same(found, vector(1))


async def test_a_batch_is_not_kept_alive_by_one_of_its_rows():
    batch = np.zeros((64, DIM), np.float32)
    batch[:, 0] = 1
    hot = cache()
    found, _ = await hot.get_or_compute(key(), INTERACTIVE, ready(CachedVector(batch[3], vector().classes)))
    assert not np.shares_memory(found.embedding, batch)
    found, _ = await hot.get_or_compute(key(), INTERACTIVE, ready())
    assert not np.shares_memory(found.embedding, batch)


async def test_one_computation_for_all_who_ask_at_the_same_time():
    lookups = Counted("vitrine_embedder_cache_lookups_total")
    hot, computation = cache(), Computation(vector(1))
    tasks = [asyncio.create_task(hot.get_or_compute(key(), INTERACTIVE, computation)) for _ in range(32)]
    await settle()
    computation.release()
    answers = await asyncio.gather(*tasks)
    assert computation.begun == 1
    assert [source for _, source in answers] == [Source.COMPUTED] + [Source.JOINED] * 31
    assert (lookups(result="miss"), lookups(result="joined"), lookups()) == (1, 31, 32)


async def test_an_entry_is_not_served_after_its_time():
    clock = Clock()
    hot, computation = cache(clock, cache_ttl_seconds=60), ready()
    await hot.get_or_compute(key(), INTERACTIVE, computation)
    clock.now += 59.9
    assert (await hot.get_or_compute(key(), INTERACTIVE, computation))[1] is Source.MEMORY
    clock.now += 0.2
    assert (await hot.get_or_compute(key(), INTERACTIVE, computation))[1] is Source.COMPUTED


async def test_memory_stays_within_its_bound_and_says_what_it_holds():
    entries, held = Counted("vitrine_embedder_cache_entries"), Counted("vitrine_embedder_cache_bytes")
    evictions = Counted("vitrine_embedder_cache_evictions_total")
    hot = cache(cache_memory_bytes=10_000)
    for number in range(100):
        await hot.get_or_compute(key(number), BULK, ready(vector(number)))
    kept = [
        number
        for number in range(100)
        if (await hot.get_or_compute(key(number), BULK, ready(vector(number))))[1] is Source.MEMORY
    ]
    assert kept == []  # asking for all of them in turn pushes each out before it is asked for
    assert 0 < entries() + entries._before.get((), 0) < 20
    assert held() + held._before.get((), 0) <= 10_000
    assert evictions() > 160


async def test_errors_are_not_kept():
    hot, computation = cache(), Computation()
    computation.release(InvalidArgumentError("not a picture"))
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="not a picture"):
            await hot.get_or_compute(key(), INTERACTIVE, computation)
    assert computation.begun == 2


async def test_a_vector_that_cannot_be_right_is_answered_but_not_kept():
    invalid = Counted("vitrine_embedder_cache_invalid_total")
    hot = cache()
    bad = CachedVector(np.full(DIM, np.nan, np.float32), vector().classes)
    for _ in range(2):
        found, source = await hot.get_or_compute(key(), INTERACTIVE, ready(bad))
        assert found is bad
        assert source is Source.COMPUTED
    assert invalid(origin="model", reason="not_finite") == invalid() == 2


async def test_a_cache_that_is_off_only_computes():
    lookups = Counted("vitrine_embedder_cache_lookups_total")
    off = cache(cache_memory_bytes=0)
    await off.start()
    assert not off.enabled
    answer, computation = vector(), Computation(vector())
    tasks = [asyncio.create_task(off.get_or_compute(key(), INTERACTIVE, computation)) for _ in range(3)]
    await settle()
    computation.release()
    assert [source for _, source in await asyncio.gather(*tasks)] == [Source.COMPUTED] * 3
    assert_same((await off.get_or_compute(key(), INTERACTIVE, ready(answer)))[0], answer)
    assert computation.begun == 3
    assert lookups() == 0
    await off.close()
