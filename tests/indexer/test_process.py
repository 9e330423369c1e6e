"""The shard as a process: its lock, its start, its end, its builder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import grpc
import psutil
import pytest

from services.local.supervisor import ProcessDiedError
from tests.indexer.shard import Shard, point, random_vectors
from tests.watching import sample
from vitrine.v1 import indexer_pb2


async def refuses_to_start(running, message):
    with pytest.raises(ProcessDiedError, match=rf"status 2(?s:.*)vitrine indexer: {message}"):
        await running.start()
    await running.stop()


async def test_two_processes_cannot_share_a_folder(shard, tmp_path):
    async with shard() as running:
        second = Shard(running.data, tmp_path / "second", {})
        await refuses_to_start(second, rf"data_dir .*data is used by another process \(pid {running.pid}\)")
        await running.kill()
        await second.start()
        await second.stop()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("format.json", '{"format": 2}', "data_dir .* has format 2, this program knows 1"),
        ("format.json", "{", "format.json is damaged"),
        ("collections/x", None, "has collections but no format.json"),
        ("", "a file", "cannot be used"),
    ],
)
async def test_a_folder_that_cannot_be_right_is_refused(tmp_path, file, content, message):
    path = tmp_path / "data" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(parents=True) if content is None else path.write_text(content)
    await refuses_to_start(Shard(tmp_path / "data", tmp_path / "logs", {}), f".*{message}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment_points": 200_000}, "segment_points"),
        ({"max_stream_points": 9, "max_queued_points": 8}, "max_stream_points"),
        ({"no_such_setting": 1}, "VITRINE_INDEXER_NO_SUCH_SETTING"),
    ],
)
async def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ProcessDiedError, match=message):
        await Shard(tmp_path / "data", tmp_path / "logs", settings).start()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
async def test_searches_the_event_loop_and_grpc_let_each_other_finish(shard):
    (vector,) = random_vectors(1)
    async with shard() as running:
        await running.create()
        await running.store([point("p", "i", vector)])
        assert await running.search(vector)

        def threads(ask):
            return {ask(each.id) for each in psutil.Process(running.pid).threads()}

        assert threads(os.sched_getscheduler) == {os.SCHED_BATCH}
        async with asyncio.timeout(30):  # the canary looks at that search, in a thread that leaves cores to the others
            while 15 not in threads(lambda each: os.getpriority(os.PRIO_PROCESS, each)):
                await asyncio.sleep(0.01)


async def test_sigterm_acks_what_was_read_ends_streams_and_exits_with_0(shard):
    vectors = random_vectors(400)
    async with shard(group_commit_ms=100) as running:
        await running.create()
        call = running.stub.Upsert()
        acked = set()
        for number, vector in enumerate(vectors):
            item = indexer_pb2.UpsertItem(sequence=number, point=point(f"p{number}", "i", vector))
            await call.write(indexer_pb2.UpsertRequest(collection="things", items=[item]))
            if not number:  # a stream without any answer yet would be tried again by gRPC, and find nobody
                acked |= {result.sequence for result in (await call.read()).results}
        os.kill(running.pid, signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while (response := await call.read()) is not grpc.aio.EOF:
                acked |= {result.sequence for result in response.results if not result.status.code}
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the shard is draining: send again what was not acknowledged"
        assert await running.supervisor.processes["shard"].process.wait() == 0
        assert acked, "the stream should have been read before the signal arrived"
        await running.restart()
        found = {each.key.product_id for each in await running.scan()}
        assert {f"p{number}" for number in acked} == found


async def test_a_builder_that_dies_is_noticed_and_the_build_is_done_again(shard):
    vectors = random_vectors(2_500, 64)
    async with shard(segment_points=2_000) as running:
        await running.create(dim=64, ef_construction=2_000, m=64)
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(vectors)])
        builder = await running.child("services.indexer.builder")
        builder.kill()
        assert (await running.search(vectors[7], k=1))[0][0] == "p7"
        await running.until_segments(1)
        assert (await running.search(vectors[7], k=1))[0][0] == "p7"
        log = running.log()
        assert f"the builder process {builder.pid} ended with status -9" in log
        assert log.count('"event": "builder process started"') == 2
        assert list((running.data / "scratch").iterdir()) == []


async def test_helper_processes_do_not_outlive_a_killed_shard(shard):
    vectors = random_vectors(4_000, 64)
    async with shard(segment_points=4_000, build_threads=os.cpu_count()) as running:
        await running.create(dim=64, ef_construction=2_000, m=64)
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(vectors)])
        children = [await running.child(f"services.indexer.{name}") for name in ("builder", "text.process")]
        if sys.platform == "linux":
            async with asyncio.timeout(30):  # searches stop the builder where it and they want every core
                while not await sample(running.metrics_port, "vitrine_indexer_builder_stopped_seconds_total"):
                    await running.search(vectors[7], k=1)
            children[0].suspend()  # and that may be when the shard is killed
        await running.kill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
        assert (len(gone), alive) == (2, [])
