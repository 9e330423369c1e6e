"""The load generator, a process of its own (`bench.embedder.child`): closed loops, open arrivals, bulk streams.

A job names the target (`protocol`, `address`, `images`: a folder, `dim`) and a `mode`:

    closed  `callers` loops for `seconds` after `warm_seconds`; answers that came within are counted
    open    Poisson arrivals in `segments` of [per second, seconds], each with a `deadline` in seconds; `seed`
    stream  bulk images as fast as they are taken, for `seconds`
    vector  the answer to image 0, in hex
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import uvloop

from bench.embedder.child import Job, Result, serve
from bench.embedder.clients import GrpcTarget, RefusedError, Target, open_target
from bench.embedder.images import read_images

# Callers that were refused come back after this, where they were not told when.
_COME_BACK_SECONDS = 0.05


async def closed(target: Target, *, callers: int, seconds: float, warm_seconds: float) -> Result:
    """Each caller sends the next image when its answer is there."""
    begin = time.perf_counter() + warm_seconds
    end = begin + seconds
    latencies: list[float] = []
    refused: Counter[str] = Counter()

    async def caller(number: int) -> None:
        call = await target.caller()
        while (started := time.perf_counter()) < end:
            try:
                await call(number)
            except RefusedError as refusal:
                refused[refusal.code] += 1
                await asyncio.sleep(refusal.retry_after or _COME_BACK_SECONDS)
                continue
            if begin <= (done := time.perf_counter()) < end:
                latencies.append(done - started)
            number += callers

    async def cpu_time() -> float:
        await asyncio.sleep(begin - time.perf_counter())
        before = time.process_time()
        await asyncio.sleep(end - time.perf_counter())
        return time.process_time() - before

    async with asyncio.TaskGroup() as group:
        measured = group.create_task(cpu_time())
        for number in range(callers):
            group.create_task(caller(number))
    return {
        "per_s": len(latencies) / seconds,
        "latencies": latencies,
        "refused": refused,
        "client_cpu_ms": 1000 * measured.result() / max(1, len(latencies)),
    }


async def open_loop(target: Target, *, segments: list[tuple[float, float]], deadline: float, seed: int) -> Result:
    """Images arrive whether or not earlier ones were answered; latency counts from the planned arrival."""
    arrivals: list[float] = []
    dice = random.Random(seed)
    at = limit = 0.0
    for rate, seconds in segments:
        at, limit = limit, limit + seconds
        while (at := at + dice.expovariate(rate)) < limit:
            arrivals.append(at)
    outcomes: list[tuple[float, float, str, bool]] = []
    lateness: list[float] = []
    call = await target.caller()
    began = time.perf_counter() + 0.1

    async def one(number: int, planned: float) -> None:
        code, advice = "OK", False
        lateness.append(time.perf_counter() - began - planned)
        try:
            await call(number, deadline)
        except RefusedError as refusal:
            code, advice = refusal.code, refusal.advised
        outcomes.append((planned, time.perf_counter() - began - planned, code, advice))

    async with asyncio.TaskGroup() as group:
        for number, planned in enumerate(arrivals):
            if (wait := began + planned - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(number, planned))
    return {"outcomes": outcomes, "lateness": lateness}


async def stream(target: GrpcTarget, *, seconds: float) -> Result:
    """One bulk stream."""
    end = time.perf_counter() + seconds
    answers: Counter[bool] = Counter()

    def answered(good: bool) -> None:
        if time.perf_counter() < end:
            answers[good] += 1

    await target.stream(lambda: time.perf_counter() < end, answered)
    return {"per_s": answers[True] / seconds, "failed": answers[False]}


async def handle(job: Job) -> Result:
    """Does one job."""
    mode = job.pop("mode")
    images = read_images(Path(job.pop("images")))
    address, dim = job.pop("address"), job.pop("dim")
    target = open_target(job.pop("protocol"), address, images, dim)
    try:
        if mode == "closed":
            return await closed(target, **job)
        if mode == "vector":
            return {"body": (await (await target.caller())(0, 30.0)).hex()}
        if mode == "open":
            return await open_loop(target, **job)
        if mode == "stream" and isinstance(target, GrpcTarget):
            return await stream(target, **job)
        raise ValueError(f"mode {mode!r} is not known for this protocol")
    finally:
        await target.close()


if __name__ == "__main__":
    uvloop.run(serve(handle))
