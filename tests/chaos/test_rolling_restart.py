"""Every service restarted, one after the other, under load: no caller with Vitrine's client sees a call fail."""

import asyncio
import dataclasses
import time

import pytest

from services.local.stack import Ports, Stack
from tests.chaos.load import DEADLINE, SLACK, Load
from tests.chaos.trouble import nothing_is_lost
from tests.conftest import STEADY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECONNECT_SECONDS = 3.0
"""What a rollout waits between two replicas: a client tries one that was away again after 2.4 s at most
(`vitrine.channels`: 2 s and a fifth of jitter), and until then it has only the other one."""


class Doubled(Stack):
    """A stack with two gateways and two embedders; each pair has one gRPC name."""

    def __init__(self, data, tiny_model):
        self.first, self.second = Ports.free(2), Ports.free(2)
        self.gateways = f"ipv4:127.0.0.1:{self.first.gateway},127.0.0.1:{self.second.gateway}"
        self.embedders = f"ipv4:127.0.0.1:{self.first.embedder},127.0.0.1:{self.second.embedder}"
        environment = STEADY | {"VITRINE_GATEWAY_EMBEDDER": self.embedders}
        super().__init__(data, ports=self.first, model_dir=tiny_model, environment=environment)

    async def start(self):
        await super().start()
        for name in ("gateway", "embedder"):
            spec, port = self.supervisor.processes[name].spec, getattr(self.second, name)
            prefix = f"VITRINE_{name.upper()}_"
            changes = {f"{prefix}PORT": str(port), f"{prefix}METRICS_PORT": str(self.second.metrics[port])}
            if name == "gateway":
                changes |= {f"{prefix}HTTP_PORT": "0", f"{prefix}DATA_DIR": str(self.data / "gateway-2")}
            await self.supervisor.start(
                dataclasses.replace(
                    spec,
                    name=f"{name}-2",
                    address=f"127.0.0.1:{port}",
                    environment={**spec.environment, **changes},
                )
            )


async def test_a_rolling_restart_fails_no_call(tmp_path, tiny_model):
    stack = Doubled(tmp_path / "stack", tiny_model)
    async with stack.supervisor:
        await stack.start()
        load = Load(
            stack.gateways,
            stack.embedders,
            stack.indexers,
            kinds=("image", "vector", "words"),
            plainly=True,
            pause=0.02,
        )
        kinds = ("image", "vector", "plain")
        pids = {name: each.process.pid for name, each in stack.supervisor.processes.items()}
        async with load.running():
            await load.until_answers(5, kinds=kinds)
            for name in ("gateway", "gateway-2", "embedder", "embedder-2", "indexer-0", "indexer-1"):
                began = time.monotonic()
                process = stack.supervisor.processes[name].process
                process.terminate()
                assert await process.wait() == 0, f"{name} did not end by itself"
                await stack.supervisor.restart(name)
                await asyncio.sleep(RECONNECT_SECONDS)
                await load.until_answers(5, kinds=kinds)
                await load.until_acked(5)
                # Where there are two, not even an answer's completeness suffers.
                lacking = [each for each in load.journal.since(began) if each.code == "OK" and not each.whole]
                assert name.startswith("indexer") or lacking == [], name
        assert {name: each.process.pid for name, each in stack.supervisor.processes.items()}.items().isdisjoint(
            pids.items()
        )
        # Without retries a call can meet the instant in which gRPC stops a server: read, but not begun.
        assert {each.code for each in load.journal.failed() if each.kind == "plain"} <= {"CANCELLED"}
        assert [each for each in load.journal.failed() if each.kind != "plain"] == []
        assert all(each.seconds < DEADLINE + SLACK for each in load.journal.calls)
        lacking = [each for each in load.journal.calls if each.code == "OK" and not each.whole]
        # What lacks a shard says so, and by how much.
        assert all(each.degraded and (each.coverage == (1, 2) or each.kind == "words") for each in lacking)
        assert any(each.coverage == (1, 2) for each in lacking), "the shards were never away"
        await nothing_is_lost(load, stack.indexers)
