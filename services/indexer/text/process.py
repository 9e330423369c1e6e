"""The process that feeds lexicons, away from the process that searches.

`python -m services.indexer.text.process`, started by `services.indexer.text.feeding`. One JSON job a line on standard
input, one JSON answer a line on standard output. It ends when its standard input does, also in the middle of a job, so
that it never outlives the server. It knows nothing between jobs but open files.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from pydantic import BaseModel, ConfigDict

from services.indexer.records import Record
from services.indexer.schema import connect
from services.indexer.store import Reader
from services.indexer.text.document import Document
from services.indexer.text.lexicon import DamagedLexiconError, LexiconWriter

_SUFFIX = ".db"
_POINTS_OF_A_SLICE = 2_000
_MOST_OPEN = 64
# Behind the ids of all images: none is longer, and no character is beyond this one.
_PAST_ALL_IMAGES = "\U0010ffff" * 64


class TextJob(BaseModel):
    """Something to do for the lexicon of one collection.

    open: check the lexicon, or make one (`fresh`: in any case). update: read `products` again; `generation` is reached
    with that. scan: compare the products past `after` with the truth, as many as fit a slice; the last slice writes
    `generation`, the first one may leave it out and learns it. close: let go of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["open", "update", "scan", "close"]
    database: Path
    folder: Path
    file: str = ""
    fresh: bool = False
    products: list[str] = []
    after: str = ""
    generation: int | None = None


class TextAnswer(BaseModel):
    """What became of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str | None = None
    damaged: bool = False
    """The error is the lexicon's: it must be made anew."""
    file: str = ""
    generation: int = -1
    """open: what the lexicon has reached. scan: what the truth had reached when the first slice was read."""
    documents: int = 0
    after: str | None = None
    """scan: where the next slice begins; None: it was the last."""


class Workshop:
    """Does jobs."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, LexiconWriter] = OrderedDict()

    def do(self, job: TextJob) -> TextAnswer:
        """Does one job.

        Raises:
            OSError, sqlite3.Error, VitrineError: It cannot be done; the lexicon is as before.
        """
        try:
            match job.kind:
                case "open":
                    return self._begin(job)
                case "update":
                    return self._update(job)
                case "scan":
                    return self._scan(job)
                case "close":
                    self._close(job.folder / job.file)
                    return TextAnswer()
        except DamagedLexiconError as error:
            self._close(job.folder / job.file)
            return TextAnswer(error=str(error), damaged=True)

    def _begin(self, job: TextJob) -> TextAnswer:
        job.folder.mkdir(exist_ok=True)
        files = sorted(job.folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        if files and not job.fresh:
            lexicon = LexiconWriter.open(files.pop())
        else:
            lexicon = LexiconWriter.create(job.folder / f"{uuid.uuid4().hex[:12]}{_SUFFIX}")
        for stale in files:
            for path in job.folder.glob(f"{stale.name}*"):
                path.unlink(missing_ok=True)
        self._keep(lexicon)
        return TextAnswer(file=lexicon.path.name, generation=lexicon.generation, documents=lexicon.documents)

    def _update(self, job: TextJob) -> TextAnswer:
        lexicon = self._lexicon(job)
        with closing(connect(job.database)) as connection:
            connection.execute("BEGIN")
            reader = Reader(connection)
            truth = {
                product_id: Document.of(record for _, record in reader.product(product_id))
                for product_id in job.products
            }
        lexicon.apply(_differing(truth, lexicon.digests(truth)), job.generation)
        return TextAnswer(documents=lexicon.documents)

    def _scan(self, job: TextJob) -> TextAnswer:
        lexicon = self._lexicon(job)
        with closing(connect(job.database)) as connection:
            connection.execute("BEGIN")
            reader = Reader(connection)
            generation = reader.generation() if job.generation is None else job.generation
            products, complete = _slice(reader, job.after)
        last = None if complete else next(reversed(products))
        truth: dict[str, Document | None] = {
            product_id: Document.of(records) for product_id, records in products.items()
        }
        known = lexicon.between(job.after, last)
        changes = _differing(truth, known) | dict.fromkeys(known.keys() - truth.keys())
        lexicon.apply(changes, generation if complete else None)
        return TextAnswer(generation=generation, documents=lexicon.documents, after=last)

    def _lexicon(self, job: TextJob) -> LexiconWriter:
        path = job.folder / job.file
        lexicon = self._open.get(path)
        if lexicon is None:
            lexicon = LexiconWriter.open(path)
            self._keep(lexicon)
        self._open.move_to_end(path)
        return lexicon

    def _keep(self, lexicon: LexiconWriter) -> None:
        self._open[lexicon.path] = lexicon
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()

    def _close(self, path: Path) -> None:
        lexicon = self._open.pop(path, None)
        if lexicon is not None:
            lexicon.close()


def _slice(reader: Reader, after: str) -> tuple[dict[str, list[Record]], bool]:
    """Returns whole products past `after` in order, and whether there are no more."""
    rows = reader.page((after, _PAST_ALL_IMAGES), _POINTS_OF_A_SLICE)
    products: dict[str, list[Record]] = {}
    for _, record in rows:
        products.setdefault(record.product_id, []).append(record)
    if len(rows) < _POINTS_OF_A_SLICE:
        return products, True
    # The last one may go on behind the slice.
    last = next(reversed(products))
    products[last] = [record for _, record in reader.product(last)]
    return products, False


def _differing(truth: Mapping[str, Document | None], known: Mapping[str, bytes]) -> dict[str, Document | None]:
    return {
        product_id: document
        for product_id, document in truth.items()
        if known.get(product_id) != (None if document is None else document.digest)
    }


def main() -> None:
    """Serves jobs until standard input ends."""
    # Whatever a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    workshop = Workshop()
    while True:
        line = jobs.get()
        try:
            answer = workshop.do(TextJob.model_validate(json.loads(line)))
        except Exception as error:  # the server decides what to do about it; this process goes on
            answer = TextAnswer(error=f"{type(error).__name__}: {error}")
        print(answer.model_dump_json(), file=answers)


if __name__ == "__main__":
    main()
