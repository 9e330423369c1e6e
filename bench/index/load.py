"""The load generator, a process of its own (`bench.embedder.child`). It sends prepared bytes and decodes no answers.

A job has a `mode` and the server's `address`, and names the methods whose calls go together on a stream, as those of a
gateway do (`multiplexed`). Files are those of `bench.index.messages`, times are monotonic seconds, which all processes
of a machine share.

    closed  `callers` loops over `requests` to `method`, for `seconds` after `warm_seconds`, and until one is answered
    once    each of `requests` once, from `callers` loops; the answers go to the file `replies`
    probe   open loop: every one of `probes` (name, method, requests, per_s) calls at its fixed rate, answered or not,
            until the file `until` appears; latency counts from the planned time
    upsert  see `bench.index.writing`
    fresh   see `bench.index.writing`
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.embedder.child import Job, Result, serve
from bench.index.messages import read_messages, write_messages
from bench.index.writing import Call, fresh, upsert
from vitrine.multiplex.channel import MultiplexChannel

_LOOK_SECONDS = 0.05
_CALL_SECONDS = 30.0
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def closed(
    channel: grpc.aio.Channel, *, method: str, requests: str, callers: int, seconds: float, warm_seconds: float
) -> Result:
    """Each caller sends the next request when its answer is there."""
    messages = read_messages(Path(requests))
    call: Call = channel.unary_unary(method)
    begin = time.monotonic() + warm_seconds
    end = begin + seconds
    latencies: list[float] = []
    refused: Counter[str] = Counter()
    last = end

    async def caller(number: int) -> None:
        nonlocal last
        for message in itertools.cycle(messages[number % len(messages) :] + messages[: number % len(messages)]):
            if (started := time.monotonic()) >= end and (latencies or refused):
                return
            try:
                await call(message, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                refused[f"{error.code().name}: {error.details()}"] += 1
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            if begin <= (done := time.monotonic()) and (done < end or not latencies):
                latencies.append(done - started)
                last = max(last, done)

    async def processor_time() -> float:
        await asyncio.sleep(begin - time.monotonic())
        before = time.process_time()
        await asyncio.sleep(end - time.monotonic())
        return time.process_time() - before

    async with asyncio.TaskGroup() as group:
        spent = group.create_task(processor_time())
        for number in range(callers):
            group.create_task(caller(number * len(messages) // callers))
    return {
        "per_s": len(latencies) / (last - begin),
        "latencies": latencies,
        "refused": refused,
        "client_cores": spent.result() / seconds,
    }


async def once(channel: grpc.aio.Channel, *, method: str, requests: str, callers: int, replies: str) -> Result:
    """Every request is answered once."""
    messages = read_messages(Path(requests))
    call: Call = channel.unary_unary(method)
    answers: list[bytes] = [b""] * len(messages)
    latencies: list[float] = []
    work = iter(enumerate(messages))

    async def caller() -> None:
        for number, message in work:
            started = time.monotonic()
            answers[number] = await call(message, timeout=_CALL_SECONDS)
            latencies.append(time.monotonic() - started)

    await asyncio.gather(*(caller() for _ in range(callers)))
    write_messages(Path(replies), answers)
    return {"latencies": latencies}


async def probe(channel: grpc.aio.Channel, *, probes: Sequence[dict[str, Any]], until: str) -> Result:
    """Calls at fixed rates; returns, for each probe, [planned, seconds, lateness of the send, fault] of every call."""
    stop = Path(until)

    async def one(name: str, call: Call, message: bytes, planned: float) -> None:
        late, fault = time.monotonic() - planned, ""
        try:
            await call(message, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            fault = f"{error.code().name}: {error.details()}"
        outcomes[name].append((planned, time.monotonic() - planned, late, fault))

    async def tick(name: str, method: str, requests: str, per_s: float) -> None:
        messages = itertools.cycle(read_messages(Path(requests)))
        call: Call = channel.unary_unary(method)
        await call(next(messages), timeout=_CALL_SECONDS)  # connects
        began = time.monotonic() + _LOOK_SECONDS
        async with asyncio.TaskGroup() as calls:
            for number in itertools.count():
                planned = began + number / per_s
                if (wait := planned - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if stop.exists():  # noqa: ASYNC240 - a look at a local folder
                    return
                calls.create_task(one(name, call, next(messages), planned))

    outcomes: dict[str, list[tuple[float, float, float, str]]] = {each["name"]: [] for each in probes}
    async with asyncio.TaskGroup() as group:
        for each in probes:
            group.create_task(tick(**each))
    return {"outcomes": outcomes}


async def handle(job: Job) -> Result:
    """Does one job."""
    modes = {"closed": closed, "once": once, "probe": probe, "upsert": upsert, "fresh": fresh}
    work = modes[job.pop("mode")]
    multiplexed = job.pop("multiplexed", ())
    async with grpc.aio.insecure_channel(job.pop("address"), options=_OPTIONS) as channel:
        result: Result = await work(MultiplexChannel(channel, multiplexed), **job)  # type: ignore[operator]
        return result


if __name__ == "__main__":
    uvloop.run(serve(handle))
