"""The truth of one collection: an SQLite database, written by one thread and read by many."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from services.indexer.records import Operation, Record
from services.indexer.rules import ArrivalClock
from services.indexer.schema import SCHEMA_VERSION, checksum_of_record, checksum_of_vector, connect, upgrade
from services.indexer.transaction import Commit, Transaction
from vitrine.errors import DataLossError, InternalError, NotFoundError, UnavailableError, VitrineError
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

_MAX_IDLE_READERS = 32
_ROWS_AT_A_TIME = 2_048


class Store:
    """One collection's database. `commit` belongs to the writer thread; everything else may run anywhere."""

    def __init__(self, path: Path) -> None:
        """Opens a database.

        Raises:
            DataLossError: It is damaged or of another format version.
        """
        self._path = path
        self._clock = ArrivalClock()
        self._closed = False
        self._idle_readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_MAX_IDLE_READERS)
        try:
            self._writer = connect(path, writer=True)
            upgrade(self._writer)
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA_VERSION:
                raise DataLossError(f"{path} has format version {version}, this program knows {SCHEMA_VERSION}")
            spec, self.generation = self._writer.execute("SELECT spec, generation FROM state").fetchone()
            (self.tombstones,) = self._writer.execute("SELECT COUNT(*) FROM tombstones").fetchone()
        except sqlite3.DatabaseError as error:
            raise DataLossError(f"{path} cannot be read: {error}") from None
        self.spec = indexer_pb2.CollectionSpec.FromString(spec)

    def commit(self, operations: Sequence[Operation]) -> Commit:
        """Applies operations in order, all or none; on disk when it returns.

        Raises:
            UnavailableError: The disk is full or refuses; nothing was stored.
            DataLossError: The database is damaged.
        """
        try:
            commit = Transaction(self._writer, self._clock, self.tombstones).run(operations)
        except sqlite3.Error as error:
            raise _translate(error) from error
        else:
            self.generation, self.tombstones = commit.generation, commit.tombstones
            return commit
        finally:
            if self._writer.in_transaction:
                with suppress(sqlite3.Error):  # what made the commit fail may fail this too; the next one starts clean
                    self._writer.execute("ROLLBACK")

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Lends a consistent view of the last commit.

        Raises:
            NotFoundError: The collection was dropped.
        """
        if self._closed:
            raise NotFoundError(f"collection {self.spec.name!r} was dropped")
        try:
            connection = self._idle_readers.get_nowait()
        except queue.Empty:
            connection = connect(self._path)
        try:
            connection.execute("BEGIN")
            yield Reader(connection)
        except sqlite3.Error as error:
            raise _translate(error) from error
        finally:
            self._take_back(connection)

    def close(self) -> None:
        """Closes the database; readers that are lent out close when they come back."""
        self._closed = True
        self._close_idle()
        self._writer.close()  # last, so that it moves the log into the database

    def _take_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.rollback()
            self._idle_readers.put_nowait(connection)
        except (sqlite3.Error, queue.Full):
            connection.close()
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        while True:
            try:
                self._idle_readers.get_nowait().close()
            except queue.Empty:
                return


class Reader:
    """Reads one consistent state of the database; every row is checked against its checksum (DataLossError)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def generation(self) -> int:
        """Returns the generation being read."""
        found: int = self._sql.execute("SELECT generation FROM state").fetchone()[0]
        return found

    def image(self, product_id: str, image_id: str) -> list[tuple[int, Record]]:
        """Returns the label and the record of one image, or nothing."""
        return self._rows("WHERE product_id = ? AND image_id = ?", product_id, image_id)

    def product(self, product_id: str) -> list[tuple[int, Record]]:
        """Returns all images of a product by image id."""
        return self._rows("WHERE product_id = ? ORDER BY image_id", product_id)

    def page(self, after: tuple[str, str], limit: int) -> list[tuple[int, Record]]:
        """Returns the next points in key order."""
        return self._rows("WHERE (product_id, image_id) > (?, ?) ORDER BY product_id, image_id LIMIT ?", *after, limit)

    def all(self) -> Iterator[list[tuple[int, Record]]]:
        """Yields every point in label order, many at a time."""
        label = -1
        while rows := self._rows("WHERE label > ? ORDER BY label LIMIT ?", label, _ROWS_AT_A_TIME):
            yield rows
            label = rows[-1][0]

    def vector(self, label: int) -> FloatArray:
        """Returns the vector of a live point: float32 of shape [dim]."""
        row = self._sql.execute("SELECT vector, checksum FROM vectors WHERE label = ?", (label,)).fetchone()
        if row is None or type(row[0]) is not bytes or checksum_of_vector(label, row[0]) != row[1]:
            raise DataLossError(f"the stored vector of label {label} is {'missing' if row is None else 'damaged'}")
        return np.frombuffer(row[0], dtype="<f4").astype(np.float32)

    def _rows(self, condition: str, *arguments: str | int) -> list[tuple[int, Record]]:
        found = []
        query = f"SELECT label, product_id, image_id, version, payload, checksum, newer FROM points {condition}"  # noqa: S608
        for label, product_id, image_id, version, payload, checksum, newer in self._sql.execute(query, arguments):
            record = Record(product_id, image_id, version, payload)
            if type(payload) is not bytes or checksum_of_record(record, newer) != checksum:
                raise DataLossError(f"the stored point {product_id!r}, {image_id!r} is damaged")
            found.append((label, record))
        return found


def _translate(error: sqlite3.Error) -> VitrineError:
    """Says whose fault a database error is; callers have stored nothing."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    undecodable = code is None and type(error) is sqlite3.OperationalError  # text that is no UTF-8
    if undecodable or primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLossError(f"the collection's database is damaged: {error}")
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return UnavailableError(f"the shard's disk refuses, nothing was stored: {error}")
    return InternalError(f"the collection's database failed: {error}")
