"""One group commit: the operations, the rules, and the rows they change."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.indexer.overlay import Overlay
from services.indexer.records import NOT_STORED, TOO_MANY_ATTRIBUTES, Operation, Put, Record, Remove, Update
from services.indexer.rules import ArrivalClock, delete_wins, upsert_wins
from services.indexer.schema import (
    checksum_of_record,
    checksum_of_state,
    checksum_of_tombstone,
    checksum_of_vector,
)
from vitrine.attributes import MAX_ATTRIBUTES
from vitrine.errors import DataLossError


@dataclass(slots=True)
class Commit:
    """What one group commit changed."""

    generation: int
    outcomes: list[int] = field(default_factory=list)
    """For each operation: points stored (0: stale), deleted or changed; or what `records` names."""
    added: dict[int, Put] = field(default_factory=dict)
    """By label, ascending; versions are final."""
    removed: list[int] = field(default_factory=list)
    """Labels that were live before and now are not."""
    updated: dict[int, Record] = field(default_factory=dict)
    """New records of labels that were live before and still are."""
    tombstones: int = 0
    """Tombstones stored after the commit."""
    products: set[str] = field(default_factory=set)
    """Products of everything that was added, removed or updated."""


class Transaction:
    """One group commit in the making."""

    def __init__(self, connection: sqlite3.Connection, clock: ArrivalClock, tombstones: int) -> None:
        self._sql = connection
        self._clock = clock
        self._commit = Commit(0, tombstones=tombstones)

    def run(self, operations: Sequence[Operation]) -> Commit:
        """Applies operations in order and commits.

        Raises:
            sqlite3.Error: It was not committed; the caller rolls back.
            DataLossError: A stored row that it builds on is damaged; the same.
        """
        self._sql.execute("BEGIN IMMEDIATE")
        # Read back, not remembered: after a failed commit the disk is what counts.
        spec, generation, self._next_label = self._sql.execute(
            "SELECT spec, generation, next_label FROM state"
        ).fetchone()
        before = self._sql.total_changes
        for each in operations:
            self._commit.outcomes.append(self._apply(each))
        if self._sql.total_changes == before:  # everything was stale: nothing to make durable
            self._commit.generation = generation
            self._sql.execute("ROLLBACK")
            return self._commit
        self._commit.generation = generation + 1
        self._write_vectors()
        state = (generation + 1, self._next_label)
        self._sql.execute(
            "UPDATE state SET generation = ?, next_label = ?, checksum = ?", (*state, checksum_of_state(spec, *state))
        )
        self._sql.execute("COMMIT")
        return self._commit

    def _apply(self, operation: Operation) -> int:
        match operation:
            case Put():
                return self._put(operation)
            case Remove():
                return self._remove(operation)
            case Update():
                return self._update(operation)

    def _put(self, put: Put) -> int:
        record = put.record
        key = (record.product_id, record.image_id)
        version = record.version or self._clock.for_upsert()
        stored = self._sql.execute(
            "SELECT label, version, payload, newer, checksum FROM points WHERE product_id = ? AND image_id = ?", key
        ).fetchone()
        deleted = None
        if self._commit.tombstones:
            (deleted,) = self._sql.execute(
                "SELECT MAX(version) FROM tombstones WHERE product_id = ? AND image_id IN ('', ?)", key
            ).fetchone()
        if not upsert_wins(version, stored[1] if stored else None, deleted):
            return 0
        newer = None
        if stored:
            self._drop(stored[0])
            if stored[3]:
                _check_stored(Record(*key, stored[1], stored[2]), stored[3], stored[4])
                overlay = Overlay(stored[2], stored[1], stored[3]).rewritten(record.payload, version)
                record, newer = Record(*key, version, overlay.payload), overlay.newer
        if deleted is not None:  # the newer point now remembers for its image; a product's tombstone stays for others
            gone = self._sql.execute("DELETE FROM tombstones WHERE product_id = ? AND image_id = ?", key).rowcount
            self._commit.tombstones -= gone
        record = record.stamped(version)
        label = self._next_label
        self._next_label += 1
        self._sql.execute(
            "INSERT INTO points (label, product_id, image_id, version, payload, checksum, newer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (label, *key, version, record.payload, checksum_of_record(record, newer), newer),
        )
        self._commit.added[label] = Put(record, put.vector)
        self._commit.products.add(record.product_id)
        return 1

    def _remove(self, remove: Remove) -> int:
        version = remove.version or self._clock.for_delete()
        whole = not remove.image_id
        rows = self._sql.execute(
            f"SELECT label, version FROM points WHERE product_id = ? {'' if whole else 'AND image_id = ?'}",  # noqa: S608
            (remove.product_id,) if whole else (remove.product_id, remove.image_id),
        ).fetchall()
        losers = [label for label, stored in rows if delete_wins(version, stored)]
        for label in losers:
            self._drop(label)
        if losers:
            self._commit.products.add(remove.product_id)
        # A newer point under the key remembers enough by itself; a product's tombstone also guards unseen images.
        if whole or len(losers) == len(rows):
            self._bury(remove, version)
        return len(losers)

    def _update(self, update: Update) -> int:
        version = update.version or self._clock.for_upsert()
        rows = self._sql.execute(
            "SELECT label, image_id, version, payload, newer, checksum FROM points"
            " WHERE product_id = ?1 AND ?2 IN ('', image_id)",
            (update.product_id, update.image_id),
        ).fetchall()
        if not rows:
            return NOT_STORED
        changed: list[tuple[int, Record, str | None]] = []
        for label, image_id, stored, payload, newer, checksum in rows:
            _check_stored(Record(update.product_id, image_id, stored, payload), newer, checksum)
            overlay = Overlay(payload, stored, newer)
            if overlay.change(version, update.changes):
                if overlay.size > MAX_ATTRIBUTES:
                    return TOO_MANY_ATTRIBUTES
                changed.append((label, Record(update.product_id, image_id, stored, overlay.payload), overlay.newer))
        for label, record, remembered in changed:
            self._sql.execute(
                "UPDATE points SET payload = ?, checksum = ?, newer = ? WHERE label = ?",
                (record.payload, checksum_of_record(record, remembered), remembered, label),
            )
            added = self._commit.added.get(label)
            if added is None:
                self._commit.updated[label] = record
            else:
                self._commit.added[label] = Put(record, added.vector)
        if changed:
            self._commit.products.add(update.product_id)
        return len(changed)

    def _bury(self, remove: Remove, version: int) -> None:
        product = remove.product_id
        newest = self._sql.execute(
            "SELECT MAX(version) FROM tombstones WHERE product_id = ? AND image_id IN ('', ?)",
            (product, remove.image_id),
        ).fetchone()[0]
        if newest is not None and newest >= version:
            return
        # What the new tombstone covers goes: its own older self, and for a product those of its images.
        scope = "image_id = ?2" if remove.image_id else "?2 = ''"
        gone = self._sql.execute(
            f"DELETE FROM tombstones WHERE product_id = ?1 AND {scope} AND version <= ?3",  # noqa: S608
            (product, remove.image_id, version),
        ).rowcount
        tombstone = (product, remove.image_id, version)
        self._sql.execute("INSERT INTO tombstones VALUES (?, ?, ?, ?)", (*tombstone, checksum_of_tombstone(*tombstone)))
        self._commit.tombstones += 1 - gone

    def _drop(self, label: int) -> None:
        self._sql.execute("DELETE FROM points WHERE label = ?", (label,))
        self._commit.updated.pop(label, None)
        if self._commit.added.pop(label, None) is None:
            self._commit.removed.append(label)

    def _write_vectors(self) -> None:
        self._sql.executemany("DELETE FROM vectors WHERE label = ?", ((label,) for label in self._commit.removed))
        packed = ((label, put.vector.astype("<f4").tobytes()) for label, put in self._commit.added.items())
        self._sql.executemany(
            "INSERT INTO vectors VALUES (?, ?, ?)",
            ((label, vector, checksum_of_vector(label, vector)) for label, vector in packed),
        )


def _check_stored(record: Record, newer: str | None, checksum: int) -> None:
    """Refuses to build on a damaged row, which would give the damage a right checksum.

    Raises:
        DataLossError: It fails its checksum.
    """
    if checksum_of_record(record, newer) != checksum:
        raise DataLossError(f"the stored point {record.product_id!r}, {record.image_id!r} is damaged")
