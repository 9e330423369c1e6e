"""Python runs this at the start of a process that has this folder on its path: a shard, or its builder, under test.

Where the file that VITRINE_TEST_FUSE names holds `ROLE COUNT`, the process of that role (`server` or `builder`) kills
the shard and its builder with SIGKILL right before or after its COUNT-th sync, rename or replacement of a file: the
moments between a file and its name, and between a name and the manifest that lists it. With a path after them, nothing
counts before there is a file of that name.
"""

import os
import signal
import sys
from pathlib import Path


def _blow(server):
    for pid in {server, os.getpid()}:
        os.kill(pid, signal.SIGKILL)


def _arm(count, server, waits_for):
    left = count

    def step():
        nonlocal left
        left -= waits_for is None or waits_for.exists()
        if left == 0:
            _blow(server)

    def fused(function):
        def call(*arguments, **options):
            step()
            result = function(*arguments, **options)
            step()
            return result

        return call

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, fused(getattr(os, name)))


def _start():
    place = Path(os.environ.get("VITRINE_TEST_FUSE", "/nonexistent"))
    builder = "services.indexer.builder" in sys.orig_argv
    server = os.getppid() if builder else os.getpid()
    if not builder and not {"services.indexer", "services.local.child"} & set(sys.orig_argv):
        return
    try:
        role, count, *waits_for = place.read_text().split()
    except (OSError, ValueError):
        return  # no fuse
    if role == ("builder" if builder else "server"):
        _arm(int(count), server, Path(waits_for[0]) if waits_for else None)


_start()
