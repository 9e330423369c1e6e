"""What tests see of a running service from outside, and of this process from within."""

import asyncio
import gc
import urllib.request
from contextlib import contextmanager


async def scrape(metrics_port):
    """Returns the page of metrics that a process serves on loopback."""

    def read():
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as page:
            return page.read().decode()

    return await asyncio.to_thread(read)


@contextmanager
def no_garbage_collection():
    """Yields a function that returns all objects of some types that are still there without the collector's help."""
    gc.collect()
    gc.disable()
    try:
        yield lambda *types: [each for each in gc.get_objects() if isinstance(each, types)]
    finally:
        gc.enable()
