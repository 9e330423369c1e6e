"""What is merged next, and that a merged segment holds what its parts held."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.indexer.merging import Part, next_run
from tests.indexer.shard import point, random_vectors
from vitrine.filters import parse

MOST = 1_000


def parts(*sizes, dead=(), fresh=()):
    return [Part(str(index), size, MOST if index in dead else 0, index in fresh) for index, size in enumerate(sizes)]


def chosen(given_parts, **options):
    return [int(part.name) for part in next_run(given_parts, most_rows=MOST, dead_share=0.2, **options)]


def test_blocks_come_first_and_up_to_four_together():
    assert chosen(parts(10, 10, 10, 16, 16, fresh=(3, 4))) == [3, 4]
    assert chosen(parts(*[16] * 7, fresh=range(7))) == [0, 1, 2, 3]
    assert chosen(parts(600, 600, fresh=(0, 1))) == [0]  # no more than fit


def test_a_run_is_merged_once_it_is_three_times_its_largest_part():
    assert chosen(parts(10, 10)) == []
    assert chosen(parts(10, 10, 10)) == [0, 1, 2]
    assert chosen(parts(90, 10, 10)) == []
    assert chosen(parts(90, 10, 10, 10)) == [1, 2, 3]  # the cheapest
    assert chosen(parts(400, 400, 400)) == []  # would be too large


def test_at_rest_everything_that_an_eighth_of_is_new_comes_together():
    assert chosen(parts(400, 400, 100), resting=True) == [0, 1, 2]
    assert chosen(parts(90, 10), resting=True) == []  # too little to build 90 again
    assert chosen(parts(80, 10), resting=True) == [0, 1]
    assert chosen(parts(600, 600, 100), resting=True) == [1, 2]  # no more than fit
    assert chosen(parts(90, 10, 10, 10), resting=True) == [1, 2, 3]  # what is due anyway goes first


@given(st.lists(st.integers(1, MOST), max_size=12))
def test_merging_at_rest_ends(sizes):
    left = parts(*sizes)
    for step in range(100):
        run = next_run(left, most_rows=MOST, dead_share=0.2, resting=True)
        if not run:
            break
        start = left.index(run[0])
        left[start : start + len(run)] = [Part(f"m{step}", sum(part.live for part in run), 0, False)]
    else:
        raise AssertionError("it goes on for ever")


def test_neighbours_only():
    assert chosen(parts(10, 10, 5, 10, fresh=(2,)), held=frozenset("2")) == []


def test_a_segment_of_mostly_dead_rows_is_built_anew():
    assert chosen(parts(500, 900, dead=(0,))) == [0]


def test_held_units_are_left_alone():
    assert chosen(parts(10, 10, 10), held=frozenset("1")) == []


@given(st.lists(st.tuples(st.integers(1, MOST), st.booleans(), st.booleans()), max_size=12))
def test_compaction_ends_with_nothing_left_to_merge(drawn):
    left = [Part(str(index), live, 5 * dead, fresh) for index, (live, dead, fresh) in enumerate(drawn)]
    for step in range(100):
        run = next_run(left, most_rows=MOST, dead_share=0.2, compact=len(left))
        if not run:
            break
        start = left.index(run[0])
        assert left[start : start + len(run)] == run
        left[start : start + len(run)] = [Part(f"merged {step}", sum(part.live for part in run), 0, False)]
    assert not run
    assert sum(part.live for part in left) == sum(live for live, _, _ in drawn)
    assert not any(part.dead or part.fresh for part in left)
    assert all(one.live + other.live > MOST for one, other in itertools.pairwise(left))


async def test_segments_merge_by_themselves_and_answer_as_before(shard):
    """Searches, filters and reads before, between and after; deletes and updates on all sides; and after a restart."""
    vectors = random_vectors(1_200, seed=5)
    async with shard(segment_points=100, max_segment_points=100_000, purge_dead_share=1) as running:
        await running.create()

        async def answers():
            found = []
            for vector in vectors[::300]:
                found += [await running.search(vector, k=20, exact=exact) for exact in (True, False)]
                found.append(await running.search(vector, k=20, filter=parse("n < 300")))
            return found

        for start in range(0, 1_200, 100):
            await running.store([point(f"p{i}", "i", vectors[i], version=1, n=i) for i in range(start, start + 100)])
        await running.delete(*((f"p{i}", "i") for i in range(0, 1_200, 7)), version=2)
        before = await answers()
        async with asyncio.timeout(60):
            while (info := await running.describe()).segments > 4 or info.fresh_points > 100:
                await asyncio.sleep(0.05)
        assert await answers() == before
        await running.delete(*((f"p{i}", "i") for i in range(1, 1_200, 7)), version=2)
        before = await answers()
        compacted = await running.compact()
        assert compacted.segments_after == 1
        info = await running.describe()
        assert (info.segments, info.dead_rows, info.fresh_points) == (1, 0, 0)
        assert await answers() == before
        await running.kill()
        await running.restart()
        assert (await running.describe()).segments == 1
        assert await answers() == before
        assert len(await running.scan()) == info.points


async def test_dead_rows_are_dropped_once_there_are_many(shard):
    async with shard(segment_points=200, max_segment_points=100_000) as running:
        await running.create()
        await running.store([point(f"p{i}", "i", each, version=1) for i, each in enumerate(random_vectors(1_000))])
        await running.compact()
        await running.delete(*((f"p{i}", "i") for i in range(600)), version=2)
        async with asyncio.timeout(60):
            while (info := await running.describe()).dead_rows:
                await asyncio.sleep(0.05)
        assert info.points == 400
        assert info.segments == 1
        rows = {each.key.product_id for each in await running.scan()}
        assert rows == {f"p{i}" for i in range(600, 1_000)}


async def test_what_rests_becomes_one_segment_although_it_fills_no_block(shard):
    vectors = random_vectors(700)
    async with shard(segment_points=1_000, seal_idle_seconds=0.2, default_ef=8) as running:
        await running.create()
        await running.store([point(f"p{number}", "i", vectors[number]) for number in range(600)])
        await eventually_holds(running, segments=1, fresh=0)
        await running.store([point(f"p{number}", "i", vectors[number]) for number in range(600, 610)])
        await asyncio.sleep(1)
        assert (await running.describe()).fresh_points == 10  # a graph of ten is of no use
        assert (await running.search(vectors[605], k=1))[0][0] == "p605"


async def eventually_holds(running, *, segments, fresh):
    async with asyncio.timeout(60):
        while True:
            info = await running.describe()
            if (info.segments, info.fresh_points) == (segments, fresh):
                return
            await asyncio.sleep(0.05)
