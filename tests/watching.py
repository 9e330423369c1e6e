"""What tests see of a running service from outside, and of this process from within."""

import asyncio
import gc
import re
import urllib.request
from contextlib import contextmanager


async def scrape(metrics_port, accept="text/plain"):
    """Returns the page of metrics that a process serves on loopback."""

    def read():
        request = urllib.request.Request(f"http://127.0.0.1:{metrics_port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request) as page:
            return page.read().decode()

    return await asyncio.to_thread(read)


async def sample(metrics_port, name, **labels):
    """Returns the value of the first series with a name and at least these labels; 0 where there is none."""
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    for line in (await scrape(metrics_port)).splitlines():
        if found := re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line):
            given = set(found[1].split(",")) if found[1] else set()
            if wanted <= given:
                return float(found[2])
    return 0.0


@contextmanager
def no_garbage_collection():
    """Yields a function that returns new objects of some types that are still there without the collector's help."""
    gc.collect()
    gc.disable()
    before = {id(each) for each in gc.get_objects()}  # also what other tests keep: what was there stays there
    try:
        yield lambda *types: [each for each in gc.get_objects() if isinstance(each, types) and id(each) not in before]
    finally:
        gc.enable()


async def left_behind(alive, *types):
    """Returns what `alive` still finds of some types after a while: a thread or a task may just be letting go of it."""
    for _ in range(500):
        if not alive(*types):  # not kept by a name: that would be what holds them
            break
        await asyncio.sleep(0.01)
    return alive(*types)
