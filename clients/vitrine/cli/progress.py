"""Progress of long work: a bar with rate and time left in a terminal, log lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vitrine.cli.output import errors

_LINE_SECONDS = 5.0


class _Rate(ProgressColumn):
    """Things done a second."""

    def render(self, task: Task) -> Text:
        """Returns the rate of late."""
        return Text(f"{task.speed:.0f}/s" if task.speed else "", style="progress.data.speed")


class Meter:
    """Shows how much of `total` is done; what it writes goes to standard error."""

    def __init__(self, what: str, total: int, *, quiet: bool = False) -> None:
        self._what = what
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=errors,
            disable=quiet or not errors.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total)

    def at(self, done: int) -> None:
        """Says how much is done by now."""
        self._done = done
        self._bar.update(self._task, completed=done)
        now = time.monotonic()
        if self._bar.disable and not self._quiet and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            rate = done / (now - self._started)
            left = f", {(self._total - done) / rate:.0f} s left" if 0 < done <= self._total else ""
            errors.print(f"{self._what}: {done} of {self._total}, {rate:.0f}/s{left}", highlight=False)

    def say(self, line: str) -> None:
        """Writes a line above the bar."""
        if not self._quiet:
            self._bar.console.print(line, highlight=False)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
