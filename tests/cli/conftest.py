"""A small catalogue of pictures that differ, and the command line against a stack."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from models.tiny import build_tiny
from services.local.stack import ROOT, Ports, Stack
from tests.conftest import STEADY
from vitrine.channels import open_channel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

HEADER = "product_id,title,category,price,in_stock,images"


@dataclass
class Ran:
    """What a finished command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    def refused(self, message):
        """Returns whether nothing was done, for this reason, said in one line or as a usage error."""
        usage = self.err.startswith("Usage: ")
        in_one_line = self.err.startswith("error: ") and self.err.count("\n") == 1
        return self.status == 2 and self.out == "" and message in self.err and (usage or in_one_line)


class Shell:
    """Runs `vitrine` as a process against one stack."""

    def __init__(self, stack):
        self.stack = stack

    async def start(self, *arguments, env=None, launcher=()):
        stack = self.stack
        return await asyncio.create_subprocess_exec(
            *launcher,
            *(sys.executable, "-m", "vitrine.cli"),
            *("--gateway", stack.gateway, "--embedder", stack.embedder, "--indexers", ",".join(stack.indexers)),
            *map(str, arguments),
            env={**os.environ, "PYTHONPATH": str(ROOT / "clients"), "COLUMNS": "200", **(env or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments, env=None):
        process = await self.start(*arguments, env=env)
        return await self.finish(process)

    async def run_each(self, *commands):
        """Runs commands that do not get in each other's way, a few at a time; returns what they left, in order."""
        slots = asyncio.Semaphore(os.cpu_count() or 1)

        async def run(command):
            async with slots:
                return await self.run(*command)

        return await asyncio.gather(*map(run, commands))

    async def finish(self, process):
        out, err = await asyncio.wait_for(process.communicate(), 120)
        ran = Ran(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ran.err
        return ran

    async def shard_calls(self, call):
        """Calls every shard; returns the answers in shard order."""
        answers = []
        for address in self.stack.indexers:
            async with open_channel(address) as channel:
                answers.append(await call(indexer_pb2_grpc.IndexerStub(channel)))
        return answers

    async def points(self, collection):
        """Returns every stored point by its key."""

        async def scan(stub):
            request = indexer_pb2.ScanRequest(collection=collection)
            return [point async for page in stub.Scan(request) for point in page.points]

        pages = await self.shard_calls(scan)
        return {(point.key.product_id, point.key.image_id): point for page in pages for point in page}

    async def drop(self, collection):
        """Drops a collection on every shard that has it."""

        async def drop(stub):
            try:
                await stub.DropCollection(indexer_pb2.DropCollectionRequest(collection=collection))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

        await self.shard_calls(drop)

    async def collections(self):
        """Returns the names of the collections on any shard."""

        async def names(stub):
            answer = await stub.ListCollections(indexer_pb2.ListCollectionsRequest())
            return [each.spec.name for each in answer.collections]

        return {name for shard in await self.shard_calls(names) for name in shard}

    async def until_some_stored(self, process, *, collection=None):
        """Waits until some points, not all, are stored; `process` must still be at it."""

        async def count(stub):
            answer = await stub.ListCollections(indexer_pb2.ListCollectionsRequest())
            return sum(each.points for each in answer.collections if collection in (None, each.spec.name))

        while sum(await self.shard_calls(count)) == 0:
            assert process.returncode is None
            await asyncio.sleep(0.005)
        assert process.returncode is None

    async def interrupt(self, process, number=signal.SIGINT):
        """Interrupts a command while the embedder stands still, so that it cannot end by itself just before."""
        embedder = self.stack.supervisor.processes["embedder"].process
        embedder.send_signal(signal.SIGSTOP)
        try:
            process.send_signal(number)
            await asyncio.sleep(0.2)  # the signal is handled while nothing moves
        finally:
            embedder.send_signal(signal.SIGCONT)
        return await self.finish(process)


def picture(seed, side=96):
    """A picture unlike any other: coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


@pytest.fixture
def shop(tmp_path):
    """A folder with products.csv: 12 products of 2 images each."""
    folder = tmp_path / "shop"
    (folder / "img").mkdir(parents=True)
    lines = [HEADER]
    for number in range(12):
        images = []
        for view in range(2):
            name = f"img/P{number:02}_{view}.png"
            picture(10 * number + view).save(folder / name)
            images.append(name)
        category = ("Kitchen", "Office")[number % 2]
        lines.append(
            f"P{number:02},Thing {number},{category},{10 * number + 0.5},{number % 3 > 0:d},{';'.join(images)}"
        )
    (folder / "products.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def big_shop(tmp_path):
    """A folder with products.csv: 300 products whose images take a while to decode."""
    folder = tmp_path / "big"
    folder.mkdir()
    lines = [HEADER]
    for number in range(300):
        picture(number, side=700).save(folder / f"{number}.jpg", quality=95)
        lines.append(f"P{number:03},Thing {number},Office,1.5,1,{number}.jpg")
    (folder / "products.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    """A running stack that the tests of a module share; its model finds subjects."""
    model = build_tiny(tmp_path_factory.mktemp("model"), attends=True)
    stack = Stack(tmp_path_factory.mktemp("stack"), ports=Ports.free(2), model_dir=model, environment=STEADY)
    async with stack.supervisor:
        await stack.start()
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def shell(stack):
    """The command line against the module's stack, which has no collection and is whole again afterwards."""
    shell = Shell(stack)
    yield shell
    for name, each in list(stack.supervisor.processes.items()):
        if each.process.returncode is not None:
            await stack.supervisor.restart(name)
    for name in await shell.collections():
        await shell.drop(name)
