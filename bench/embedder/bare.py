"""The yardstick: decode and run in plain loops, in one process (`bench.embedder.child`), with nothing around them.

A job: `lanes` threads, each decoding and running batches of `batch` through sessions of `threads` threads, for
`seconds`; `spinning`, `precision`, `model_dir`, `images` (a folder). `vector`: only embed image 0.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.embedder.child import Job, Result, serve
from bench.embedder.images import read_images
from bench.peers.work import Work, copy_of

_WARM_SECONDS = 0.4


@functools.cache
def _work(model_dir: str, threads: int, spinning: bool, precision: str) -> Work:
    folder = copy_of(Path(model_dir), precision)
    assert folder is not None, f"{model_dir} has no {precision} copy"
    return Work(folder, threads=threads, spinning=spinning)


def loops(work: Work, files: list[bytes], *, lanes: int, batch: int, seconds: float) -> Result:
    """Returns images per second of all lanes together, and seconds of each batch."""
    begin = time.perf_counter() + _WARM_SECONDS
    end = begin + seconds

    def lane(number: int) -> list[float]:
        taken = itertools.islice(itertools.cycle(files), number * len(files) // lanes, None)
        seen = []
        while (started := time.perf_counter()) < end:
            work(list(itertools.islice(taken, batch)))
            if begin <= (done := time.perf_counter()) < end:
                seen.append(done - started)
        return seen

    with ThreadPoolExecutor(lanes) as threads:
        latencies = [each for seen in threads.map(lane, range(lanes)) for each in seen]
    return {"per_s": batch * len(latencies) / seconds, "latencies": latencies}


async def handle(job: Job) -> Result:
    """Does one job."""
    work = _work(job["model_dir"], job.get("threads", 1), job.get("spinning", False), job["precision"])
    files = read_images(Path(job["images"]))
    if job.get("vector"):
        return {"body": work(files[:1])[0].tobytes().hex()}
    return await asyncio.to_thread(loops, work, files, lanes=job["lanes"], batch=job["batch"], seconds=job["seconds"])


if __name__ == "__main__":
    asyncio.run(serve(handle))
