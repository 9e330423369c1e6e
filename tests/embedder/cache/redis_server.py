"""A real redis-server on a free loopback port, and servers that only claim to be one."""

import asyncio
import shutil
import socket
import subprocess
import time
from contextlib import asynccontextmanager

from services.local.ports import free_ports

BINARY = shutil.which("redis-server")


class RedisServer:
    """Keeps its port over restarts, and nothing else."""

    def __init__(self, folder, *options, tls=False):
        (self.port,) = free_ports(1)
        self._folder = folder
        port = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        self._command = [
            BINARY, *port, "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no", *options,
        ]  # fmt: skip
        self._process = None

    def start(self):
        with (self._folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        raise AssertionError("redis-server does not listen")

    def kill(self):
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@asynccontextmanager
async def impostor(handle):
    """A TCP server that does what `handle(reader, writer)` does; gives its port."""

    async def serve(reader, writer):
        try:
            await handle(reader, writer)
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
