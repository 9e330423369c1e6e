"""What is done to processes, and what must hold when it is over."""

import asyncio
import contextlib
import shutil
import signal
import time
from contextlib import asynccontextmanager

import psutil

from deploy.rules.files import alerts
from deploy.watching.prometheus import Prometheus
from tests.chaos.load import COLLECTION, DEADLINE, PATIENCE, SLACK, Load
from tests.conftest import missing
from tests.watching import sample
from vitrine.channels import open_channel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class Trouble:
    """A stack under load, watched by a Prometheus that has the committed rules."""

    def __init__(self, stack, prometheus, load):
        self.stack = stack
        self.prometheus = prometheus
        self.load = load

    def process(self, name):
        return psutil.Process(self.stack.supervisor.processes[name].process.pid)

    async def kill(self, name):
        """Kills a process; returns when that was, once the kernel has no such process any more."""
        process, moment = self.process(name), time.monotonic()
        await self.stack.supervisor.kill(name)
        assert not process.is_running()
        assert self.stack.supervisor.processes[name].process.returncode == -signal.SIGKILL
        return moment

    async def metric(self, port, name, **labels):
        return await sample(self.stack.ports.metrics[port], name, **labels)

    async def gateway_metric(self, name, **labels):
        return await self.metric(self.stack.ports.gateway, name, **labels)

    async def breaker_is(self, shard, state):
        async with asyncio.timeout(PATIENCE):
            while await self.gateway_metric("vitrine_gateway_breaker_state", shard=shard) != state:
                await asyncio.sleep(0.1)

    async def fires(self, name, **labels):
        """Returns once the alert's expression holds (how long it must last is for promtool's tests)."""
        async with asyncio.timeout(PATIENCE):
            while not await self.is_firing(name, **labels):
                await asyncio.sleep(0.2)

    async def silent(self, name, **labels):
        """Returns once the alert's expression holds no more."""
        async with asyncio.timeout(PATIENCE):
            while await self.is_firing(name, **labels):
                await asyncio.sleep(0.2)

    async def is_firing(self, name, **labels):
        found = await self.prometheus.query(alerts()[name].expr)
        return [each for each in found if labels.items() <= each.labels.items()]

    async def is_watched(self):
        """Returns once Prometheus has seen every process well: what comes then is a change."""
        processes = self.stack.supervisor.processes.values()
        near = sum(each.spec.address.startswith("127.0.0.1:") for each in processes)
        async with asyncio.timeout(PATIENCE):
            while len(await self.prometheus.query("vitrine_serving offset 2s == 1")) < near:
                await asyncio.sleep(0.2)

    def kept_deadlines(self):
        late = [each for each in self.load.journal.calls if each.seconds > DEADLINE + SLACK]
        assert late == [], late


@asynccontextmanager
async def trouble(stack, folder):
    """Starts a stack, its Prometheus and a load; at the end all must be well again, and nothing acknowledged lost."""
    if shutil.which("prometheus") is None:
        missing("prometheus")
    async with stack.supervisor:
        await stack.start()
        load = Load(stack.gateway, stack.embedder, stack.indexers)
        async with Prometheus(stack, folder / "prometheus") as prometheus:
            found = Trouble(stack, prometheus, load)
            async with load.running():
                await load.until_answers(3)
                await load.until_acked(5)
                await found.is_watched()
                yield found
                # It is over: the same clients, without a restart of anybody else.
                await load.until_answers(5)
                await load.until_acked(20)
                for shard in range(len(stack.indexers)):
                    await found.breaker_is(shard, 0.0)
            found.kept_deadlines()
            await nothing_is_lost(load, stack.indexers)


async def nothing_is_lost(load, indexers):
    """Compares the index with what was acknowledged: every write with its version, and no deleted product."""
    record = load.record
    assert (record.stale, record.problems) == ([], []), (record.stale, record.problems)
    stored = {}
    for address in indexers:
        async with open_channel(address) as channel:
            stub = indexer_pb2_grpc.IndexerStub(channel)
            async for page in stub.Scan(indexer_pb2.ScanRequest(collection=COLLECTION)):
                for point in page.points:
                    assert point.key.product_id not in stored
                    stored[point.key.product_id] = point.version
    lost = {
        name: (version, stored.get(name)) for name, version in record.versions.items() if stored.get(name) != version
    }
    assert lost == {}, f"acknowledged and stored versions: {lost}"
    back = record.deleted & stored.keys()
    assert back == set(), f"deleted and back: {back}"
    assert record.acks > len(record.versions)  # some were written more than once
    assert record.deleted


@contextlib.contextmanager
def stopped(process):
    """Stops a process for the time of a block; it is seen to be stopped at both ends."""
    process.send_signal(signal.SIGSTOP)
    try:
        _wait_status(process, psutil.STATUS_STOPPED)
        yield
        assert process.status() == psutil.STATUS_STOPPED
    finally:
        process.send_signal(signal.SIGCONT)


def _wait_status(process, status):
    ends = time.monotonic() + 10
    while process.status() != status:
        assert time.monotonic() < ends, process.status()
        time.sleep(0.005)
