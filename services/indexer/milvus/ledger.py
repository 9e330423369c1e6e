"""What the shard remembers beside its points: tombstones, counts, the generation, and who writes.

Milvus has no transactions, so a commit is several requests, in an order that leaves nothing wrong when the process dies
between two: first the state with the new tombstones and the counts as they will be, then the points, then the removal
of tombstones that are not needed any more. Only the last commit can be unfinished. Rows carry the generation that wrote
them, and with it a start tells whether the counts are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import structlog

from services.indexer.milvus.client import LATEST, MAX_LIMIT, Fields, Milvus
from services.indexer.milvus.decisions import Key
from services.indexer.milvus.rows import KEY, PRODUCT, decode_key, encode_key, encode_product, one_of
from services.indexer.milvus.schema import STATE_VECTOR, milvus_name, state_name
from vitrine.errors import DataLossError, UnavailableError

log = structlog.get_logger()

_STATE_KEY = "state"  # no tombstone has this key: theirs have a point
_STATE_BYTES = 4_096
_KEYS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class State:
    """The counts after a commit, and the commit's own traces."""

    writer: str
    generation: int = 0
    points: int = 0
    products: int = 0
    tombstones: int = 0
    upserted: int = 0
    """Rows that the commit has written; all of them carry its generation."""


class Ledger:
    """Reads and writes the state of one collection; the writer thread's."""

    def __init__(self, milvus: Milvus, name: str, *, timeout: float) -> None:
        self._milvus = milvus
        self.name = state_name(name)
        self._points = milvus_name(name)
        self._timeout = timeout

    def read(self, products: Iterable[str] = (), *, at: int = LATEST) -> tuple[State | None, dict[Key, int]]:
        """Returns the state, and all tombstones of some products; None before the first `write`."""
        listed = [encode_product(each) for each in products]
        rows: dict[str, Fields] = {}
        for start in range(0, max(1, len(listed)), _KEYS_AT_A_TIME):
            expression = f'{KEY} == "{_STATE_KEY}"'
            if some := listed[start : start + _KEYS_AT_A_TIME]:
                expression += f" or {one_of(PRODUCT, some)}"
            for row in self._milvus.query(
                self.name, expression, (KEY, "version", "state"), at=at, timeout=self._timeout
            ):
                rows[row[KEY]] = row
        own = rows.pop(_STATE_KEY, None)
        return _state(own), {decode_key(key): int(row["version"]) for key, row in rows.items()}

    def write(self, state: State, buried: dict[Key, int]) -> None:
        """Writes the state and new tombstones, in one request."""
        rows = [_row(encode_key(*key), encode_product(key[0]), version, {}) for key, version in buried.items()]
        rows.append(_row(_STATE_KEY, "", 0, asdict(state)))
        self._milvus.upsert(self.name, rows, row_bytes=_STATE_BYTES, timeout=self._timeout)

    def dig_up(self, keys: Sequence[Key]) -> None:
        """Removes tombstones."""
        for start in range(0, len(keys), _KEYS_AT_A_TIME):
            some = [encode_key(*key) for key in keys[start : start + _KEYS_AT_A_TIME]]
            self._milvus.delete(self.name, one_of(KEY, some), timeout=self._timeout)

    def last_write(self) -> int:
        """Returns Milvus' time of the last `write`."""
        return self._milvus.last_write(self.name)

    def checked(self, state: State) -> State:
        """Returns the state with true counts: counted anew where the last commit was not finished."""
        points = self._count(self._points, "")
        tombstones = self._count(self.name, f'{KEY} != "{_STATE_KEY}"')
        upserted = self._count(self._points, f"generation == {state.generation}")
        if (points, upserted) == (state.points, state.upserted):
            products = state.products
        else:
            log.warning("the last commit was not finished: products are counted anew", collection=self._points)
            products = self._count_products()
        return State(state.writer, state.generation, points, products, tombstones, upserted)

    def _count(self, name: str, expression: str) -> int:
        return self._milvus.count(name, expression, at=LATEST, timeout=self._timeout)

    def _count_products(self) -> int:
        products, last = 0, ""
        for page in self._milvus.pages(
            self._points, KEY, "", "", (KEY, PRODUCT), size=MAX_LIMIT, at=LATEST, seconds_left=lambda: self._timeout
        ):
            # In key order the images of a product follow each other.
            for product, _ in groupby(str(row[PRODUCT]) for row in page):
                products += product != last
                last = product
        return products


def check_writer(state: State | None, writer: str) -> State:
    """Returns the state.

    Raises:
        UnavailableError: Another process writes to this collection by now.
        DataLossError: There is no state.
    """
    if state is None:
        raise DataLossError("the collection's state is gone from Milvus; restore it from a backup")
    if state.writer != writer:
        raise UnavailableError(
            "another process has taken over this shard's Milvus database; give each shard a milvus_database of its own"
        )
    return state


def _row(key: str, product: str, version: int, state: dict[str, Any]) -> Fields:
    return {KEY: key, PRODUCT: product, "version": version, "state": state, "vector": STATE_VECTOR}


def _state(row: Fields | None) -> State | None:
    if row is None:
        return None
    try:
        return State(**row["state"])
    except TypeError as error:
        raise DataLossError(f"the collection's state in Milvus cannot be read: {error}") from None
