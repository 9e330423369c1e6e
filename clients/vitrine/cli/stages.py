"""Long work in stages, each with a meter of its own."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.markup import escape

from vitrine.cli.output import errors
from vitrine.cli.progress import Meter
from vitrine.errors import VitrineError


class Stages:
    """Shows the stages of a piece of work one after the other; an `Observer` of `vitrine.collections`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._meter: Meter | None = None

    def stage(self, what: str, total: int) -> None:
        """The next stage begins."""
        self._end()
        self._meter = Meter(what, total, quiet=self._quiet).__enter__()

    def at(self, done: int) -> None:
        """Something of this stage is done."""
        if self._meter is not None:
            self._meter.at(done)

    def waiting(self, error: VitrineError, seconds: float) -> None:
        """A shard went away and is tried again."""
        line = f"[yellow]{escape(error.message)}[/]; trying again in {seconds:.1f} s"
        if self._meter is not None:
            self._meter.say(line)
        elif not self._quiet:
            errors.print(line, highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._meter is not None:
            self._meter.__exit__(None, None, None)
            self._meter = None
