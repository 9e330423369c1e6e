"""The lexicon is derived: whatever becomes of it, of its process or of the shard, searches find what is stored."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.indexer.shard import point, random_vectors
from tests.indexer.test_snapshots import restored, snapshot
from tests.watching import scrape
from vitrine.errors import DeadlineError, from_rpc_error

VECTORS = random_vectors(32, seed=6)
PROCESS = "services.indexer.text.process"


def titled(product, title, image="i"):
    return point(product, image, VECTORS[0], title=title)


def catalogue(count):
    """Products that all have one word in common, and each one of its own."""
    return [titled(f"p{number:04}", f"chair {number:04d}") for number in range(count)]


async def everything(running, count, k=1_000, collection="things"):
    """Says that exactly these products have the words that `catalogue` gave them."""
    found = await running.text("chair", k=k, collection=collection)
    assert found == [(f"p{number:04}", "i") for number in range(min(count, k))]
    for number in range(0, count, max(1, count // 7)):
        assert await running.text(f"{number:04d}", collection=collection) == [(f"p{number:04}", "i")]


async def stopped(running):
    running.supervisor.processes["shard"].process.terminate()
    assert await running.supervisor.processes["shard"].process.wait() == 0


async def rebuilds(running):
    page = await scrape(running.metrics_port)
    found = re.findall(r'^vitrine_indexer_text_rebuilds_total\{reason="(\w+)"\} (\S+)$', page, re.MULTILINE)
    return {reason: float(count) for reason, count in found}


def lexicons(running):
    return sorted(running.data.glob("collections/*/text/*.db"))


@asynccontextmanager
async def paused(process):
    process.send_signal(signal.SIGSTOP)
    try:
        while process.status() != "stopped":
            await asyncio.sleep(0.01)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def test_nothing_waits_for_the_text_index_but_text_searches(shard):
    async with shard() as running:
        await running.create()
        await running.store(catalogue(50))
        await everything(running, 50)
        async with paused(await running.child(PROCESS)):
            await running.store([titled("new", "ottoman")])
            assert ("new", "i") in {(product, image) for product, image, _ in await running.search(VECTORS[0], k=100)}
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.text("ottoman", timeout=0.5)
            error = from_rpc_error(caught.value)
            assert isinstance(error, DeadlineError)
            assert re.search(r"^vitrine_indexer_text_lag_generations\S+ 1.0$", await scrape(running.metrics_port), re.M)
        assert await running.text("ottoman") == [("new", "i")]
        page = await scrape(running.metrics_port)
        assert re.search(r"^vitrine_indexer_text_lag_generations\S+ 0.0$", page, re.M)
        assert re.search(r"^vitrine_indexer_text_documents\S+ 51.0$", page, re.M)


async def test_a_text_process_that_dies_is_started_again(shard):
    async with shard() as running:
        await running.create()
        await running.store(catalogue(50))
        await everything(running, 50)
        for round_number in range(2):
            (await running.child(PROCESS)).kill()
            await running.store([titled("new", f"ottoman{round_number}x")])
            assert await running.text(f"ottoman{round_number}x") == [("new", "i")]
        assert running.log().count("text process started") == 3
        assert await rebuilds(running) == {"missing": 1.0}


async def test_a_text_process_that_hangs_is_killed_counted_and_started_again(shard):
    async with shard(text_job_seconds=4) as running:
        await running.create()
        await running.store(catalogue(5))
        await everything(running, 5)
        process = await running.child(PROCESS)
        process.send_signal(signal.SIGSTOP)  # for good
        await running.store([titled("new", "ottoman")])
        assert await running.text("ottoman") == [("new", "i")]
        assert not process.is_running()
        assert re.search(
            r"^vitrine_indexer_text_failures_total [1-9]", await scrape(running.metrics_port), re.MULTILINE
        )
        assert "was not done within 4 s, and was killed" in running.log()


async def test_after_a_clean_stop_there_is_nothing_to_do(shard):
    async with shard() as running:
        await running.create()
        await running.store(catalogue(50))
        await everything(running, 50)  # so that it does not hang on how long a stop may take
        await stopped(running)
        await running.restart()
        await everything(running, 50)
        assert await rebuilds(running) == {}


async def test_a_shard_killed_with_its_text_index_behind_catches_up(shard):
    async with shard() as running:
        await running.create()
        await running.store([*catalogue(2_100), titled("gone", "chair"), titled("other", "divan")])
        assert await running.text("divan") == [("other", "i")]
        async with paused(await running.child(PROCESS)):
            await running.store([titled("other", "settee"), titled("zz", "ottoman")])
            await running.delete(("gone",))
            await running.kill()
        await running.restart()
        await everything(running, 2_100)
        assert await running.text("divan") == []
        assert await running.text("settee") == [("other", "i")]
        assert await running.text("ottoman") == [("zz", "i")]
        assert await rebuilds(running) == {"behind": 1.0}


async def test_kills_at_any_moment_leave_nothing_out(shard):
    """Titles change in a stream of small writes while searches go on and the shard is killed."""
    rng = random.Random(31)
    titles, acked = {}, {}
    async with shard(group_commit_ms=1) as running:
        await running.create()

        async def write():
            while True:
                product, title = (
                    f"p{rng.randrange(30)}",
                    f"{rng.choice('bcdfg')}{rng.choice('aeiou')}{rng.choice('klmnp')}",
                )
                titles[product] = {acked.get(product), title}
                await running.store([titled(product, title)])
                acked[product] = title
                titles[product] = {title}

        async def search():
            while True:
                await running.text("chair")

        for _ in range(3):
            before = len(acked)
            work = [asyncio.create_task(each()) for each in (write, search)]
            await asyncio.sleep(rng.uniform(0.2, 0.6))
            assert not any(task.done() for task in work), "both must be at work when the kill comes"
            await running.kill()
            await asyncio.gather(*work, return_exceptions=True)
            assert acked
            assert before <= len(acked)
            await running.restart()
            stored = {each.key.product_id: each.attributes["title"].string_value for each in await running.scan()}
            assert all(title in titles[product] for product, title in stored.items())
            for title in {*stored.values(), "zzz"}:
                right = sorted(product for product, own in stored.items() if own == title)
                assert [product for product, _ in await running.text(title, k=100)] == right
            acked = dict(stored)


@pytest.mark.parametrize("harm", ["removed", "emptied", "garbage", "flipped"])
async def test_a_damaged_file_is_made_anew_at_the_start(shard, harm):
    async with shard() as running:
        await running.create()
        await running.store(catalogue(300))
        await everything(running, 300)
        await stopped(running)
        [file] = lexicons(running)
        content = bytearray(file.read_bytes())
        match harm:
            case "removed":
                shutil.rmtree(file.parent)
            case "emptied":
                file.write_bytes(b"")
            case "garbage":
                file.write_bytes(random.Random(1).randbytes(len(content)))
            case "flipped":
                # A word of a document: the file is sound, and what it says is wrong.
                place = content.index(b"chair 0123")
                content[place] ^= 1
                file.write_bytes(content)
        await running.restart()
        await everything(running, 300)
        assert await rebuilds(running) == ({"missing": 1.0} if harm == "removed" else {"damaged": 1.0})
        assert len(lexicons(running)) == 1


@pytest.mark.parametrize("finder", ["search", "write"])
async def test_damage_is_repaired_while_serving(shard, finder):
    async with shard() as running:
        await running.create()
        await running.store(catalogue(300))
        await everything(running, 300)
        [file] = lexicons(running)
        if finder == "write":
            process = await running.child(PROCESS)
            process.kill()
            await asyncio.to_thread(process.wait)  # its successor opens the file anew
        with file.open("r+b") as target:  # the same file that the others have open
            target.write(b"\0" * file.stat().st_size)
        for log in file.parent.glob("*-wal"):
            log.open("wb").close()
        if finder == "write":
            await running.store(catalogue(300)[:1])
        async with asyncio.timeout(60):
            while lexicons(running) == [file]:
                # A connection that has read the file needs not read it again; with many searches there are new ones.
                await asyncio.gather(*(running.text("chair") for _ in range(16)))
        await everything(running, 300)
        assert len(lexicons(running)) == 1
        assert "text index damaged: made anew" in running.log()
        assert await rebuilds(running) == {"missing": 1.0, "damaged": 1.0}


async def test_a_restored_snapshot_has_words_again(shard, tmp_path):
    async with shard() as running:
        await running.create()
        await running.store(catalogue(100))
        await everything(running, 100)
        folder = (await snapshot(running)).path
        assert lexicons(running) == list(running.data.rglob("text/*.db")), "it is in no snapshot"
        await stopped(running)
        await restored(folder, running.data, "--as", "again")
        await running.restart()
        await everything(running, 100, collection="again")
        await everything(running, 100)
