"""Processes that do jobs: one JSON line in, one JSON line out. Load and bare loops each run in one of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from services.local.stack import ROOT

_LINE_BYTES = 2**27

Job = dict[str, Any]
Result = dict[str, Any]


class ChildError(Exception):
    """A job failed, or its process ended; the message says why."""


class Child:
    """The parent's side: starts `python -m MODULE`, and gives it one job at a time."""

    def __init__(self, module: str, log: Path) -> None:
        self._module = module
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.local.child", str(os.getpid()), self._module),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "clients")))},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                limit=_LINE_BYTES,
                start_new_session=True,
            )
        return self

    async def do(self, **job: Any) -> Result:
        """Returns what the process says to a job.

        Raises:
            ChildError: It failed.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ChildError(f"{self._module} ended; see {self._log}:\n{self._log.read_text(errors='replace')[-2000:]}")
        result: Result = json.loads(line)
        if "error" in result:
            raise ChildError(f"{self._module}: {result['error']}")
        return result

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def serve(handle: Callable[[Job], Awaitable[Result]]) -> None:
    """The child's side: does jobs until its input ends. Whatever else prints goes to the error stream."""
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            result = await handle(json.loads(line))
        except Exception as error:  # the parent decides what a failed job means
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), file=answers, flush=True)
