"""The database of feedback: answers that were shown, and what was done with their products."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrine.errors import NotFoundError
from vitrine.search.observing import Answered
from vitrine.v1 import search_pb2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS queries (
    query_id TEXT PRIMARY KEY, collection TEXT NOT NULL, kind TEXT NOT NULL, time_ms INTEGER NOT NULL,
    product_ids TEXT NOT NULL, user_hash TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queries_by_time ON queries (time_ms, query_id);
CREATE TABLE IF NOT EXISTS events (
    query_id TEXT NOT NULL REFERENCES queries ON DELETE CASCADE, product_id TEXT NOT NULL, action INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, rank INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_query ON events (query_id);
"""
_PAGE = 200
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer, as it is kept."""

    answered: Answered
    user_hash: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something a shopper did."""

    query_id: str
    product_id: str
    action: int
    """A `FeedbackAction`."""
    time_ms: int


class FeedbackStore:
    """One database file; one thread at a time may use it, but for `pages`, which opens its own connection."""

    def __init__(self, path: Path, keep_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the database.

        Raises:
            sqlite3.Error: It cannot be used.
        """
        self._path = path
        self._keep_ms = int(keep_seconds * 1_000)
        self._clock = clock
        self._sql = _connect(path)
        self._sql.executescript(_SCHEMA)

    def write(self, items: Sequence[Shown | Event]) -> list[NotFoundError | None]:
        """Stores items in order, all of them on disk when it returns; says which events belong to no known answer.

        Raises:
            sqlite3.Error: Nothing was stored.
        """
        with self._sql:  # commits, or rolls back
            self._sql.execute("BEGIN IMMEDIATE")
            return [self._show(each) if isinstance(each, Shown) else self._happen(each) for each in items]

    def expire(self) -> int:
        """Deletes what is older than it may be, up to some thousand answers; returns how many went."""
        with self._sql:
            return self._sql.execute(
                "DELETE FROM queries WHERE query_id IN (SELECT query_id FROM queries WHERE time_ms < ? LIMIT 5000)",
                (self._oldest(),),
            ).rowcount

    def count(self) -> int:
        """Returns the number of answers kept."""
        (count,) = self._sql.execute("SELECT count(*) FROM queries").fetchone()
        return int(count)

    def pages(self, collection: str, since_ms: int) -> Iterator[list[search_pb2.QueryRecord]]:
        """Yields pages of records, oldest first; blocks, so not for an event loop.

        Args:
            collection: Its own name; empty: all.
            since_ms: Milliseconds since 1970.
        """
        sql = _connect(self._path)
        try:
            after = (max(since_ms, self._oldest()), "")
            while True:
                rows = sql.execute(
                    "SELECT query_id, collection, kind, time_ms, product_ids, user_hash FROM queries"
                    " WHERE (time_ms, query_id) > (?, ?) AND ? IN ('', collection) ORDER BY time_ms, query_id LIMIT ?",
                    (*after, collection, _PAGE),
                ).fetchall()
                if not rows:
                    return
                after = (rows[-1][3], rows[-1][0])
                yield [_record(row, _events(sql, row[0])) for row in rows]
        finally:
            sql.close()

    def close(self) -> None:
        """Closes the database."""
        self._sql.close()

    def _oldest(self) -> int:
        return int(self._clock() * 1_000) - self._keep_ms

    def _show(self, shown: Shown) -> NotFoundError | None:
        answered = shown.answered
        self._sql.execute(
            "INSERT OR IGNORE INTO queries VALUES (?, ?, ?, ?, ?, ?)",
            (
                answered.query_id,
                answered.collection,
                answered.kind,
                shown.time_ms,
                json.dumps(answered.product_ids),
                shown.user_hash,
            ),
        )
        return None

    def _happen(self, event: Event) -> NotFoundError | None:
        row = self._sql.execute(
            "SELECT product_ids FROM queries WHERE query_id = ? AND time_ms >= ?", (event.query_id, self._oldest())
        ).fetchone()
        if row is None:
            return NotFoundError(f"query_id {event.query_id!r} is unknown, or has expired", field="query_id")
        shown = json.loads(row[0])
        rank = shown.index(event.product_id) + 1 if event.product_id in shown else 0
        self._sql.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
            (event.query_id, event.product_id, event.action, event.time_ms, rank),
        )
        return None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _events(sql: sqlite3.Connection, query_id: str) -> list[search_pb2.FeedbackEvent]:
    rows = sql.execute(
        "SELECT product_id, action, time_ms, rank FROM events WHERE query_id = ? ORDER BY time_ms, rowid", (query_id,)
    )
    return [
        search_pb2.FeedbackEvent(product_id=product_id, action=action, time_ms=time_ms, rank=rank)
        for product_id, action, time_ms, rank in rows
    ]


def _record(row: tuple[str, str, str, int, str, str], events: list[search_pb2.FeedbackEvent]) -> search_pb2.QueryRecord:
    query_id, collection, kind, time_ms, product_ids, user_hash = row
    return search_pb2.QueryRecord(
        query_id=query_id,
        collection=collection,
        kind=kind,
        time_ms=time_ms,
        product_ids=json.loads(product_ids),
        events=events,
        user_hash=user_hash,
    )
