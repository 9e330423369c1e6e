"""A disk that is full while writes come in: refused, nothing acknowledged lost, searches untouched."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time

import pytest

from tests.chaos.load import PATIENCE
from tests.chaos.trouble import trouble

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@contextlib.contextmanager
def small_disk(folder):
    folder.mkdir(parents=True)
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_disk_of_a_shard_refuses_writes_alone(make_stack, tmp_path):
    stack = make_stack()
    data = stack.data / "indexer-1"
    with small_disk(data):
        async with trouble(stack, tmp_path) as found:
            await found.silent("DiskFullInHours")
            moment = time.monotonic()
            filler = data / "filler"
            with filler.open("wb", buffering=0) as sink, contextlib.suppress(OSError):
                while sink.write(bytes(4_096)):
                    pass
            assert shutil.disk_usage(data).free < 4_096
            port = stack.ports.embedder
            async with asyncio.timeout(PATIENCE):
                while await found.metric(port, "vitrine_embedder_ingest_items_total", code="UNAVAILABLE") < 20:
                    await asyncio.sleep(0.1)
            await found.fires("DiskFullInHours", job="vitrine-indexer")
            await found.fires("IngestionFails", job="vitrine-embedder")
            await found.load.until_answers(10)
            since = found.load.journal.since(moment)
            assert [each for each in since if not each.whole and each.kind != "words"] == []
            # The words of the last write before may wait for room: such an answer comes without them, and says so.
            assert {each.code for each in since} == {"OK"}
            filler.unlink()
            await found.silent("DiskFullInHours")
