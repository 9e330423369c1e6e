"""The builder process: builds segments, away from the process that searches.

`python -m services.indexer.builder`, started by `services.indexer.builds`. One JSON job a line on standard input; for
each, in order, lines of JSON with its progress and one with its answer on standard output. It ends when its standard
input does, also in the middle of a job, so that it never outlives the server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from pydantic import BaseModel, ConfigDict

from services.indexer.leftovers import Leftovers
from services.indexer.manifest import SegmentEntry
from services.indexer.schema import checksum_of_vector, connect
from services.indexer.segments import write_segment
from services.runtime.parents import end_with_parent


class BuildJob(BaseModel):
    """A segment to build: the live points of `database` with labels `first_label`..`last_label`, at most `rows`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: Path
    target: Path
    scratch: Path
    first_label: int
    last_label: int
    rows: int
    dim: int
    metric: int
    m: int
    ef_construction: int
    threads: int
    reduce: bool


class BuildAnswer(BaseModel):
    """How far a job is, or what became of it: a segment, nothing (no point was live any more), or an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: SegmentEntry | None = None
    error: str | None = None
    seconds: float = 0.0
    progress: int | None = None
    """Rows built so far, of a job that goes on."""


def build(job: BuildJob, report: Callable[[int], None]) -> BuildAnswer:
    """Does one job; calls `report` with the rows built so far.

    Raises:
        OSError, sqlite3.Error, ValueError: It cannot be done; leaves at most its scratch folder behind.
    """
    started = time.perf_counter()
    labels: list[int] = []
    vectors = np.empty((job.rows, job.dim), np.float32)  # deletes may have left fewer since
    with closing(connect(job.database)) as connection:
        query = "SELECT label, vector, checksum FROM vectors WHERE label BETWEEN ? AND ? ORDER BY label"
        for label, vector, checksum in connection.execute(query, (job.first_label, job.last_label)):
            if checksum_of_vector(label, vector) != checksum:
                raise ValueError(f"the stored vector of label {label} is damaged")
            vectors[len(labels)] = np.frombuffer(vector, "<f4")
            labels.append(label)
    if not labels:
        return BuildAnswer(seconds=time.perf_counter() - started)
    entry = write_segment(
        job.target,
        job.scratch,
        np.array(labels, np.int64),
        vectors[: len(labels)],
        metric=job.metric,
        m=job.m,
        ef_construction=job.ef_construction,
        threads=job.threads,
        reduce=job.reduce,
        report=report,
    )
    return BuildAnswer(entry=entry, seconds=time.perf_counter() - started)


def main() -> None:
    """Serves jobs until standard input ends."""
    end_with_parent(signal.SIGKILL)  # which may have stopped it (`Courtesy`)
    # Whatever a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: SimpleQueue[str] = SimpleQueue()

    def report(rows: int) -> None:
        print(BuildAnswer(progress=rows).model_dump_json(), file=answers)

    def read() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    leftovers = Leftovers()
    leftovers.start()
    while True:
        line = jobs.get()
        try:
            with leftovers.job():
                report(0)
                answer = build(BuildJob.model_validate(json.loads(line)), report)
        except Exception as error:  # the server decides what to do about it; this process goes on
            answer = BuildAnswer(error=f"{type(error).__name__}: {error}")
        print(answer.model_dump_json(), file=answers)


if __name__ == "__main__":
    main()
