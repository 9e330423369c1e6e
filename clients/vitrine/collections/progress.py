"""The small file from which an interrupted job continues."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FORMAT = 1
_SECONDS_BETWEEN_WRITES = 1.0


class ProgressFileError(Exception):
    """The file is of another job, or damaged; the message names it and says what to do."""


class ProgressFile:
    """What a job has done so far, as one JSON object beside the description of the job.

    Written in place of the old one and synced, at most once a second: what is missing from it is done again.
    """

    def __init__(self, path: Path, job: Mapping[str, object]) -> None:
        """`job` is JSON and says which job this is; only the same job continues from the file."""
        self.path = path
        self._job = dict(job)
        self._unwritten: Mapping[str, object] | None = None
        self._written_at = -_SECONDS_BETWEEN_WRITES

    def load(self) -> dict[str, Any] | None:
        """Returns the state last written; None: there is no file.

        Raises:
            ProgressFileError: It is of another job, or damaged.
            OSError: It cannot be read.
        """
        try:
            content = json.loads(self.path.read_bytes())
            job, state = content["job"], content["state"]
            if content["format"] != _FORMAT or not isinstance(state, dict):
                raise ValueError
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise ProgressFileError(f"{self.path} is no progress file, or damaged: remove it to start afresh") from None
        if job != self._job:
            raise ProgressFileError(
                f"{self.path} is the progress of another job ({_short(job)}), not of this one ({_short(self._job)}): "
                "remove it to give that one up"
            )
        return state

    def note(self, state: Mapping[str, object]) -> None:
        """Takes the state, to be written as it is about a second later at most, or at `flush`.

        Raises:
            OSError: It cannot be written.
        """
        self._unwritten = state
        if time.monotonic() - self._written_at >= _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Puts the state noted last on disk.

        Raises:
            OSError: It cannot be written.
        """
        if self._unwritten is None:
            return
        content = {"format": _FORMAT, "job": self._job, "state": self._unwritten}
        staged = self.path.with_name(self.path.name + ".tmp")
        with staged.open("w", encoding="utf-8") as sink:
            json.dump(content, sink)
            sink.flush()
            os.fsync(sink.fileno())
        staged.replace(self.path)
        self._unwritten = None
        self._written_at = time.monotonic()

    def remove(self) -> None:
        """The job is done."""
        self._unwritten = None
        self.path.unlink(missing_ok=True)


def _short(job: object) -> str:
    if not isinstance(job, dict):
        return str(job)
    return ", ".join(f"{name} {value}" for name, value in job.items())
