"""The network between a shard and everybody else is cut: a shard in a network namespace, a cable that is pulled."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import time

import psutil
import pytest

from services.local.stack import Ports, Stack
from tests.chaos.load import DEADLINE
from tests.chaos.trouble import trouble
from tests.conftest import STEADY, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Cable:
    """A network namespace and a pair of interfaces into it."""

    def __init__(self):
        number = random.randrange(2**16)
        self.namespace = f"vitrine{number:04x}"
        self._outside, self._inside = f"vo{number:04x}", f"vi{number:04x}"
        network = f"10.213.{number % 256}"  # nobody's, on a machine that runs tests
        self._ours, self.address = f"{network}.1/30", f"{network}.2"

    @contextlib.contextmanager
    def plugged(self):
        if shutil.which("ip") is None:
            missing("iproute2")
        if os.geteuid() or not self._try("netns", "add", self.namespace):
            pytest.skip("needs root and the right to make network namespaces")
        try:
            self._ip("link", "add", self._outside, "type", "veth", "peer", self._inside, "netns", self.namespace)
            self._ip("addr", "add", self._ours, "dev", self._outside)
            self._ip("link", "set", self._outside, "up")
            self._ip("-n", self.namespace, "addr", "add", f"{self.address}/30", "dev", self._inside)
            self._ip("-n", self.namespace, "link", "set", "lo", "up")
            self.plug()
            yield self
        finally:
            self._try("netns", "del", self.namespace)  # and with it both interfaces

    def plug(self):
        self._ip("-n", self.namespace, "link", "set", self._inside, "up")

    def pull(self):
        self._ip("-n", self.namespace, "link", "set", self._inside, "down")

    def carries(self):
        """What the kernel says of our end."""
        [link] = json.loads(self._ip("-json", "link", "show", self._outside))
        return "LOWER_UP" in link["flags"]

    def _ip(self, *arguments):
        return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout

    def _try(self, *arguments):
        return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode == 0


class Apart(Stack):
    """A stack whose last shard is in a namespace, at the other end of a cable."""

    def __init__(self, data, cable, tiny_model):
        super().__init__(data, ports=Ports.free(2), model_dir=tiny_model, environment=STEADY)
        self._cable = cable

    @property
    def indexers(self):
        near, far = super().indexers
        return [near, far.replace("127.0.0.1", self._cable.address)]

    def _spec(self, name, service, port, settings):
        spec = super()._spec(name, service, port, settings)
        if name != "indexer-1":
            return spec
        return dataclasses.replace(
            spec,
            address=self.indexers[1],
            environment={
                **spec.environment,
                "VITRINE_INDEXER_HOST": self._cable.address,
                "VITRINE_INDEXER_INSECURE_LISTEN": "true",
            },
            prefix=("ip", "netns", "exec", self._cable.namespace),
        )


async def test_a_shard_that_cannot_be_reached_costs_its_own_answers_until_it_can(tmp_path, tiny_model):
    with Cable().plugged() as cable:
        async with trouble(Apart(tmp_path / "stack", cable, tiny_model), tmp_path) as found:
            shard = found.process("indexer-1")
            assert cable.carries()
            moment = time.monotonic()
            cable.pull()
            assert not cable.carries()
            await found.breaker_is(1, 2.0)
            skipping = time.monotonic()
            await found.load.until_answers(10, lambda call: call.degraded == ("shard_skipped",), kinds=("image",))
            await found.fires("BreakerOpen", shard="1")
            # It was there all the time, and nobody stopped it.
            assert shard.is_running()
            assert shard.status() != psutil.STATUS_STOPPED
            cable.plug()
            since = [each for each in found.load.journal.since(moment) if each.kind == "image"]
            assert {each.code for each in since} == {"OK"}
            assert all(each.seconds < DEADLINE / 2 for each in since if each.began > skipping)
            await found.silent("BreakerOpen")
