"""The file that lists what could not be ingested, and why."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from vitrine.catalogue import Problem

_HEADER = ("row", "product_id", "image", "field", "reason")


class FailedRowsError(Exception):
    """The file cannot be written; the message names it and says why."""


class FailedRows:
    """A CSV file with a line for each problem; it exists after a run only where there were any."""

    def __init__(self, path: Path) -> None:
        """Removes what an earlier run left at `path`.

        Raises:
            FailedRowsError: There is another kind of file, which is left alone.
        """
        self.path = path
        self.count = 0
        self._sink: TextIO | None = None
        self._remove_earlier()

    def add(self, problem: Problem) -> None:
        """Writes one line, at once: it is there also where the run is killed.

        Raises:
            FailedRowsError: The file cannot be written.
        """
        try:
            if self._sink is None:
                self._sink = self.path.open("w", newline="", encoding="utf-8", errors="backslashreplace", buffering=1)
                csv.writer(self._sink).writerow(_HEADER)
            line = (problem.row, problem.product_id, problem.image, problem.field, problem.reason)
            csv.writer(self._sink).writerow(line)
        except OSError as error:
            raise FailedRowsError(
                f"cannot write the failed rows to {self.path}: {error.strerror or error}; choose another place with "
                "--failed"
            ) from None
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.close()

    def _remove_earlier(self) -> None:
        try:
            with self.path.open(newline="", encoding="utf-8", errors="replace") as source:
                first = next(csv.reader(source), [])
            if first and tuple(first) != _HEADER:
                raise FailedRowsError(f"{self.path} is not a list of failed rows; choose another place with --failed")
            self.path.unlink()
        except FileNotFoundError:
            pass
        except (OSError, csv.Error) as error:
            raise FailedRowsError(f"{self.path}: {error}; choose another place with --failed") from None
