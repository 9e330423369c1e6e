"""The supervisor on real processes: order, health, a death with its log, stopping, and no orphans."""

import asyncio
import os
import signal
import sys

import psutil
import pytest

from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessDiedError, ProcessSpec, Supervisor


def gateway(name="gateway", **settings):
    ports = Ports.free(1)
    values = {"PORT": ports.gateway, "METRICS_PORT": ports.metrics[ports.gateway], "HTTP_PORT": ports.http, **settings}
    environment = {f"VITRINE_GATEWAY_{key}": str(value) for key, value in values.items()}
    return ProcessSpec(name, "services.gateway", f"127.0.0.1:{ports.gateway}", environment)


async def test_a_service_that_cannot_start_is_reported_with_its_log(tmp_path):
    supervisor = Supervisor(ROOT, tmp_path / "logs")
    with pytest.raises(ProcessDiedError, match=r"(?s)gateway ended with status 2.*log_level.*'loud'"):
        async with supervisor:
            await supervisor.start(gateway(LOG_LEVEL="loud"))


async def test_a_death_is_noticed_and_the_others_are_stopped(tmp_path):
    heard = []
    async with Supervisor(ROOT, tmp_path / "logs") as supervisor:
        await supervisor.start(gateway("one"), gateway("two"), report=lambda spec, _: heard.append(spec.name))
        assert sorted(heard) == ["one", "two"]
        survivor = supervisor.processes["two"].process
        watch = asyncio.create_task(supervisor.watch())
        supervisor.processes["one"].process.kill()
        with pytest.raises(ProcessDiedError, match="one ended with status -9"):
            await watch
        assert survivor.returncode is None
    assert survivor.returncode == 0


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    async with Supervisor(ROOT, tmp_path / "logs", stop_timeout=0.5) as supervisor:
        await supervisor.start(gateway())
        supervisor.processes["gateway"].process.send_signal(signal.SIGSTOP)
        assert await supervisor.stop() == {"gateway": -signal.SIGKILL}


async def test_a_killed_supervisor_leaves_no_servers_behind(tmp_path):
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from tests.local.test_supervisor import gateway, Supervisor, ROOT\n"
        "async def main():\n"
        "    supervisor = Supervisor(ROOT, Path(sys.argv[1]))\n"
        "    await supervisor.start(gateway())\n"
        "    print(supervisor.processes['gateway'].process.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", script, str(tmp_path)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients'}"},
        stdout=asyncio.subprocess.PIPE,
    )
    server = psutil.Process(int(await process.stdout.readline()))
    process.kill()
    await process.wait()
    await asyncio.to_thread(server.wait, 30)
