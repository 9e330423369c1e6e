"""The lexicon of one collection: an SQLite file that finds products by words. One process writes it, many threads read.

Nothing in it is acknowledged to anybody, so its commits are not synced one by one: after a power failure it is the
lexicon of an earlier generation.
"""

from __future__ import annotations

import queue
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from services.indexer.text.document import Document
from vitrine.errors import DeadlineError

# Rises with every change of the tables or of what counts as a word.
_FORMAT = 1

# What the catalogue says counts for more than what a model has guessed.
# Words come cut, folded and separated by spaces (`words`): to this tokenizer all that is not ASCII is a letter.
_SCHEMA = """
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL);
INSERT INTO state VALUES (1, -1);
CREATE TABLE documents (id INTEGER PRIMARY KEY, product_id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL);
CREATE VIRTUAL TABLE lexicon USING fts5 (words, tags, tokenize = 'porter ascii');
INSERT INTO lexicon (lexicon, rank) VALUES ('rank', 'bm25(1.0, 0.5)');
"""

_FIND = """
SELECT documents.product_id, -lexicon.rank FROM lexicon JOIN documents ON documents.id = lexicon.rowid
WHERE lexicon MATCH ? ORDER BY lexicon.rank
"""

_SHORTEST_BEGINNING = 4
_MAX_IDLE_READERS = 16
_STEPS_BETWEEN_CHECKS = 20_000

# What says nothing about the file: the disk is full, slow or gone, or the search took too long.
_NO_DAMAGE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
)


class DamagedLexiconError(Exception):
    """The file cannot be used; a new one must be made."""


class LexiconWriter:
    """The side of the process that feeds the lexicon."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._sql = connection
        with _damage():
            (self.generation,) = connection.execute("SELECT generation FROM state").fetchone()
            (self.documents,) = connection.execute("SELECT COUNT(*) FROM documents").fetchone()

    @classmethod
    def create(cls, path: Path) -> Self:
        """Makes an empty lexicon, of generation -1.

        Raises:
            sqlite3.Error: The disk refuses.
        """
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_FORMAT}; COMMIT;")
        return cls(path, _prepared(connection))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a lexicon and checks all of it, which takes time.

        Raises:
            DamagedLexiconError: It is damaged or of another format.
        """
        with _damage():
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
            try:
                if connection.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
                    raise DamagedLexiconError(f"{path} has another format")
                [(verdict,), *_] = connection.execute("PRAGMA integrity_check").fetchall()
                if verdict != "ok":
                    raise DamagedLexiconError(f"{path} is damaged: {verdict}")
                # Compares the words of every document with what is found under them.
                connection.execute("INSERT INTO lexicon (lexicon) VALUES ('integrity-check')")
                return cls(path, _prepared(connection))
            except BaseException:
                connection.close()
                raise

    def digests(self, products: Iterable[str]) -> dict[str, bytes]:
        """Returns the digests of the documents that these products have."""
        found = {}
        with _damage():
            for product_id in products:
                row = self._sql.execute("SELECT digest FROM documents WHERE product_id = ?", (product_id,)).fetchone()
                if row is not None:
                    found[product_id] = row[0]
        return found

    def between(self, after: str, last: str | None) -> dict[str, bytes]:
        """Returns the digests of all documents of products past `after`, up to `last` (None: to the end)."""
        limit, arguments = ("", (after,)) if last is None else ("AND product_id <= ?", (after, last))
        with _damage():
            return dict(
                self._sql.execute(f"SELECT product_id, digest FROM documents WHERE product_id > ? {limit}", arguments)  # noqa: S608
            )

    def apply(self, changes: Mapping[str, Document | None], generation: int | None) -> None:
        """Gives products these documents (None: no document), and the lexicon a generation; all or nothing.

        Raises:
            DamagedLexiconError: It is damaged.
            sqlite3.Error: The disk refuses; nothing was changed.
        """
        documents = self.documents
        with _damage():
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                for product_id, document in changes.items():
                    documents += self._change(product_id, document)
                if generation is not None:
                    self._sql.execute("UPDATE state SET generation = ?", (generation,))
                self._sql.execute("COMMIT")
            finally:
                if self._sql.in_transaction:
                    with suppress(sqlite3.Error):
                        self._sql.execute("ROLLBACK")
        self.documents = documents
        self.generation = self.generation if generation is None else generation

    def close(self) -> None:
        """Closes the file."""
        with suppress(sqlite3.Error):
            self._sql.close()

    def _change(self, product_id: str, document: Document | None) -> int:
        """Returns by how many the documents have become more."""
        stored = self._sql.execute("SELECT id FROM documents WHERE product_id = ?", (product_id,)).fetchone()
        if document is None:
            if stored is None:
                return 0
            self._sql.execute("DELETE FROM lexicon WHERE rowid = ?", stored)
            self._sql.execute("DELETE FROM documents WHERE id = ?", stored)
            return -1
        if stored is not None:
            self._sql.execute("UPDATE documents SET digest = ? WHERE id = ?", (document.digest, *stored))
            self._sql.execute("UPDATE lexicon SET words = ?, tags = ? WHERE rowid = ?", (*document.words(), *stored))
            return 0
        row = self._sql.execute(
            "INSERT INTO documents (product_id, digest) VALUES (?, ?)", (product_id, document.digest)
        ).lastrowid
        self._sql.execute("INSERT INTO lexicon (rowid, words, tags) VALUES (?, ?, ?)", (row, *document.words()))
        return 1


class LexiconReader:
    """The side of the threads that search."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_MAX_IDLE_READERS)

    @contextmanager
    def find(self, words: Iterable[str], deadline: float) -> Iterator[Iterator[tuple[str, float]]]:
        """Lends the products that have at least one of the words (of `words_of`), and their scores, best first.

        A word of four letters and more that no document has stands for all that begin with it.

        Raises:
            DeadlineError: `time.perf_counter()` passed `deadline`.
            DamagedLexiconError: The lexicon is damaged, or gone.
        """
        connection = None
        try:
            with _damage():
                connection = self._take()
                connection.set_progress_handler(lambda: time.perf_counter() > deadline, _STEPS_BETWEEN_CHECKS)
                connection.execute("BEGIN")
                match = " OR ".join(_term(connection, word) for word in words)
                # Sorted inside SQLite, which lets other threads run, and fetched one by one, as few as it takes.
                yield iter(connection.execute(_FIND, (match,)))
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise DeadlineError("the deadline passed during the search") from None
            raise
        finally:
            if connection is not None:
                self._take_back(connection)

    def close(self) -> None:
        """Closes the file; what is lent out closes when it comes back."""
        self._closed = True
        self._close_idle()

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )

    def _take_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.set_progress_handler(None, 0)
            connection.rollback()
            self._idle.put_nowait(connection)
        except (sqlite3.Error, queue.Full):
            connection.close()
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return


def _term(connection: sqlite3.Connection, word: str) -> str:
    """Returns a word as FTS5 reads it; it holds letters and digits only."""
    exact = f'"{word}"'
    if len(word) < _SHORTEST_BEGINNING:
        return exact
    known = connection.execute("SELECT 1 FROM lexicon WHERE lexicon MATCH ? LIMIT 1", (exact,)).fetchone()
    return exact if known else f"{exact} *"


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


@contextmanager
def _damage() -> Iterator[None]:
    """Tells damage from a disk that refuses."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _NO_DAMAGE:
            raise
        raise DamagedLexiconError(f"{type(error).__name__}: {error}") from None
