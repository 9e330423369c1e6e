"""Processes that stop, or are slow, under load: nobody waits longer than they said, and all recover by themselves."""

import asyncio
import time

import psutil
import pytest

from tests.chaos.load import DEADLINE
from tests.chaos.trouble import stopped, trouble

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_shard_that_stops_is_left_alone_until_it_goes_on(make_stack, tmp_path):
    async with trouble(make_stack(), tmp_path) as found:
        with stopped(found.process("indexer-1")):
            moment = time.monotonic()
            await found.breaker_is(1, 2.0)
            skipping = time.monotonic()
            await found.load.until_answers(10, lambda call: call.degraded == ("shard_skipped",), kinds=("image",))
            await found.fires("BreakerOpen", shard="1")
            await found.fires("ProcessDown", job="vitrine-indexer")
        since = [each for each in found.load.journal.since(moment) if each.kind != "stored"]
        assert [each for each in since if each.code != "OK"] == []
        assert any("shard_timed_out" in each.degraded for each in since)
        # Once it is known, it costs nobody their deadline.
        assert all(each.seconds < DEADLINE / 2 for each in found.load.journal.since(skipping) if each.kind == "image")
        await found.silent("BreakerOpen")


async def test_an_embedder_that_stops_costs_photos_their_deadline_and_nothing_else(make_stack, tmp_path):
    async with trouble(make_stack(), tmp_path) as found:
        with stopped(found.process("embedder")):
            moment = time.monotonic()
            await found.load.until_answers(2, lambda call: call.code == "DEADLINE_EXCEEDED", kinds=("image",))
            await found.fires("NothingServes", job="vitrine-embedder")
            await found.load.until_answers(20, kinds=("stored",))
        assert set(found.load.journal.codes(moment, ("stored", "words"))) == {"OK"}
        assert await found.gateway_metric("vitrine_gateway_breaker_transitions_total", state="open") == 0
        await found.silent("NothingServes")


async def test_a_slow_shard_makes_answers_slow_and_not_wrong(make_stack, tmp_path):
    async with trouble(make_stack(), tmp_path) as found:
        shard, stops = found.process("indexer-0"), 0
        moment, before = time.monotonic(), sum(shard.cpu_times()[:2])

        async def hiccups():
            """It gets a tenth of its time."""
            nonlocal stops
            try:
                while True:
                    shard.suspend()
                    await asyncio.sleep(0.9)
                    stops += shard.status() == psutil.STATUS_STOPPED
                    shard.resume()
                    await asyncio.sleep(0.1)
            finally:
                shard.resume()

        hiccup = asyncio.create_task(hiccups())
        try:
            await found.fires("SearchLatencyBurnsFast")
            await found.load.until_answers(10)
        finally:
            hiccup.cancel()
            await asyncio.gather(hiccup, return_exceptions=True)
        seconds = time.monotonic() - moment
        assert stops >= 5
        assert sum(shard.cpu_times()[:2]) - before < seconds / 2
        since = found.load.journal.since(moment)
        assert all(each.whole for each in since if each.kind != "words")
        assert [each for each in since if each.code != "OK"] == []
        assert sum(each.seconds > 0.32 for each in since) > len(since) / 10
