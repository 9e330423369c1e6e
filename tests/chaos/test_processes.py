"""Processes that are killed, one after the other, under load."""

import asyncio
import time

import psutil
import pytest

from tests.chaos.load import PATIENCE
from tests.chaos.trouble import trouble

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_gateway_killed_is_a_clear_error_until_it_is_back(make_stack, tmp_path):
    async with trouble(make_stack(), tmp_path) as found:
        moment = await found.kill("gateway")
        await found.load.until_answers(3, lambda call: call.code == "UNAVAILABLE")
        # Calls under way when it died may have had an effect, which gRPC says with the same code.
        assert set(found.load.journal.codes(moment)) == {"UNAVAILABLE"}
        await found.load.until_acked(20)  # writes do not go through it
        await found.fires("NothingServes", job="vitrine-gateway")
        await found.fires("ProcessDown", job="vitrine-gateway")
        await found.stack.supervisor.restart("gateway")
        await found.load.until_answers(5)
        await found.silent("NothingServes")
    assert found.load.record.breaks == []


async def test_an_embedder_killed_costs_photos_alone(make_stack, tmp_path):
    async with trouble(make_stack(), tmp_path) as found:
        moment = await found.kill("embedder")
        await found.load.until_answers(3, lambda call: call.code == "UNAVAILABLE", kinds=("image",))
        await found.load.until_answers(20, kinds=("stored",))
        assert set(found.load.journal.codes(moment, ("stored", "words"))) == {"OK"}
        assert all("the embedder at" in call.message for call in found.load.journal.failed(moment))
        await found.fires("NothingServes", job="vitrine-embedder")
        await found.stack.supervisor.restart("embedder")
        await found.load.until_answers(5)
        await found.silent("NothingServes")
    assert found.load.record.breaks  # writers noticed, and tried again by themselves


async def test_a_shard_killed_costs_its_own_answers(make_stack, tmp_path):
    async with trouble(make_stack(), tmp_path) as found:
        await found.silent("BreakerOpen")
        moment = await found.kill("indexer-1")
        await found.load.until_answers(5, lambda call: call.coverage == (1, 2), kinds=("image",))
        await found.fires("BreakerOpen", shard="1")
        await found.fires("ProcessDown", job="vitrine-indexer")
        await found.fires("SearchAvailabilityBurnsFast")
        assert await found.gateway_metric("vitrine_gateway_shard_calls_total", shard="1", outcome="skipped") > 0
        since = found.load.journal.since(moment)
        assert {each.code for each in since if each.kind != "stored"} == {"OK"}
        # A product searched by may be the dead shard's own: then there is nothing to answer with.
        assert {each.code for each in since if each.kind == "stored"} == {"OK", "UNAVAILABLE"}
        assert all(each.degraded for each in since if each.code == "OK" and each.coverage == (1, 2))
        await found.stack.supervisor.restart("indexer-1")
        await found.load.until_answers(10)
        await found.silent("BreakerOpen")


async def test_helper_processes_of_a_shard_killed_in_the_middle_of_their_work_are_replaced(make_stack, tmp_path):
    stack = make_stack(environment={"VITRINE_INDEXER_SEGMENT_POINTS": "32"})
    async with trouble(stack, tmp_path) as found:
        port, moment = stack.ports.indexers[0], time.monotonic()

        async def killed_at_work(module, work, failures):
            """Stops a helper, waits until there is work, and kills it, until one had begun with it."""
            before = await found.metric(port, failures)
            async with asyncio.timeout(2 * PATIENCE):
                while await found.metric(port, failures) == before:
                    helper = await child(found.process("indexer-0"), module)
                    helper.suspend()
                    while await found.metric(port, work) == 0:
                        await asyncio.sleep(0.02)
                    helper.kill()
                    await asyncio.to_thread(helper.wait, 10)
                    assert not helper.is_running()
                    await asyncio.sleep(0.5)

        for _ in range(3):
            await killed_at_work(
                "services.indexer.builder", "vitrine_indexer_building_points", "vitrine_indexer_build_failures_total"
            )
        await found.fires("SegmentBuildsFail", job="vitrine-indexer")
        built = await found.metric(port, "vitrine_indexer_build_seconds_count", kind="seal")
        async with asyncio.timeout(PATIENCE):
            while await found.metric(port, "vitrine_indexer_build_seconds_count", kind="seal") == built:
                await asyncio.sleep(0.1)

        await killed_at_work(
            "services.indexer.text.process",
            "vitrine_indexer_text_lag_generations",
            "vitrine_indexer_text_failures_total",
        )
        await found.load.until_answers(5, kinds=("words",))
        # Nobody who searched by picture or product noticed anything.
        assert all(each.whole for each in found.load.journal.since(moment) if each.kind != "words")
        assert set(found.load.journal.codes(moment)) == {"OK"}


async def child(process, module):
    """Returns a process's own helper, once there is one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for each in process.children():
                try:
                    if module in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                        return each
                except psutil.NoSuchProcess:
                    continue
            await asyncio.sleep(0.01)
