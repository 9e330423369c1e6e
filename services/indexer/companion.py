"""A process beside the shard that does one kind of work, asked and answering in lines of JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from services.runtime.turns import put_aside

_LINE_BYTES = 2**20

log = structlog.get_logger()

Answer = TypeVar("Answer", bound=BaseModel)


class CompanionError(Exception):
    """The process went, or says what nobody understands; the next message starts a new one."""


class Companion:
    """Starts the process when there is something to say to it."""

    def __init__(self, module: str, name: str, niceness: int) -> None:
        """`module` is what Python runs, `name` what people call it."""
        self._module = module
        self._name = name
        self._niceness = niceness
        self._process: asyncio.subprocess.Process | None = None

    @property
    def started(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    async def say(self, message: BaseModel) -> None:
        """Sends a message.

        Raises:
            CompanionError: It is gone.
        """
        process = await self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(message.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
        except OSError as error:
            await self.end()
            raise CompanionError(f"lost the {self._name}: {error}") from None

    async def hear(self, kind: type[Answer]) -> Answer:
        """Waits for the next message.

        Raises:
            CompanionError: It is gone, or what it says is no such message.
        """
        process = await self._running()
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
        except (OSError, ValueError) as error:  # ValueError: a line that does not end
            await self.end()
            raise CompanionError(f"lost the {self._name}: {error}") from None
        if not line:
            status = await process.wait()
            self._process = None
            raise CompanionError(f"the {self._name} {process.pid} ended with status {status}")
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            await self.end()
            raise CompanionError(f"the {self._name} answered nonsense: {error}") from None

    def pause(self) -> None:
        """Stops the process where it is, until `resume`; it must be one that ends with its parent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    async def end(self) -> None:
        """Kills it: whatever it had not finished must be as if it had not begun."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            # A fresh interpreter: nothing of gRPC, of threads or of open databases is inherited.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is the server's to handle
            )
            put_aside(self._process.pid, self._niceness)
            log.info(f"{self._name} started", pid=self._process.pid)
        return self._process
