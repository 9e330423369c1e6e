"""Group commits into Milvus: read what is stored under the keys, decide, write, wait until it is searchable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from services.indexer.milvus.client import LATEST, Milvus
from services.indexer.milvus.decisions import Changes, decide
from services.indexer.milvus.ledger import Ledger, State, check_writer
from services.indexer.milvus.rows import (
    KEY,
    PRODUCT,
    RECORD_FIELDS,
    VECTOR_FIELDS,
    Row,
    encode_key,
    encode_product,
    from_fields,
    one_of,
    to_fields,
)
from services.indexer.milvus.schema import milvus_name
from services.indexer.records import Operation, Put, Update
from services.indexer.rules import ArrivalClock
from services.indexer.settings import IndexerSettings
from services.indexer.writer import Written
from vitrine.errors import NotFoundError, UnavailableError, VitrineError
from vitrine.v1 import indexer_pb2

_PRODUCTS_AT_A_TIME = 128
_KEYS_AT_A_TIME = 1_024


class View(NamedTuple):
    """What is searchable: the counts, and the time of Milvus that a read must not be older than."""

    generation: int
    points: int
    products: int
    tombstones: int
    at: int


class Commits:
    """The sink of a collection's writer; all of it belongs to the writer thread."""

    def __init__(
        self,
        milvus: Milvus,
        spec: indexer_pb2.CollectionSpec,
        settings: IndexerSettings,
        writer: str,
        publish: Callable[[View], None],
    ) -> None:
        """`writer` names this process; `publish` is told of each commit."""
        self._milvus = milvus
        self._name = milvus_name(spec.name)
        self._dim = spec.vector.dim
        self._timeout = settings.milvus_timeout_seconds
        self._flush = settings.milvus_flush
        self._writer = writer
        self._publish = publish
        self._clock = ArrivalClock()
        self._ledger = Ledger(milvus, spec.name, timeout=self._timeout)
        self._state = State(writer)
        self._at = LATEST
        self._sure = False
        """Whether `_state` is what Milvus has; not after a commit whose end is unknown."""

    def claim(self) -> None:
        """Makes this process the one that writes, and learns what is stored.

        Another process that had the collection finds out at its next commit. `claimed` tells, a little later, whether
        it was writing at this very moment.
        """
        stored, _ = self._ledger.read()
        state = self._ledger.checked(State(self._writer) if stored is None else stored)
        claimed = replace(state, writer=self._writer)
        self._ledger.write(claimed, {})
        self._read_back(claimed, self._ledger.last_write())

    def claimed(self) -> bool:
        """Tells whether the claim stands, and nobody else has written since."""
        state, _ = self._ledger.read()
        return state == self._state

    def write(self, operations: Sequence[Operation]) -> Written:
        """Stores operations and makes them searchable.

        Raises:
            UnavailableError: Milvus failed. What it had of them by then may be stored: they must be sent again.
            VitrineError: Nothing was stored.
        """
        if not self._sure:
            self._recover()
        self._sure = False
        products = sorted({_product(each) for each in operations})
        updated = {each.product_id for each in operations if isinstance(each, Update)}
        state, tombstones = self._ledger.read(products, at=self._at)
        check_writer(state, self._writer)
        rows = self._rows([each for each in products if each not in updated], RECORD_FIELDS)
        rows += self._rows(sorted(updated), VECTOR_FIELDS)
        changes = decide(operations, rows, tombstones, self._clock)
        if changes:
            try:
                self._store(changes)
            except NotFoundError:  # dropped meanwhile
                raise
            except VitrineError as error:
                raise UnavailableError(f"send it again, it may be stored or not: {error.message}") from error
        self._sure = True
        return Written(changes.outcomes, self._state.generation)

    def _rows(self, products: Sequence[str], fields: Sequence[str]) -> list[Row]:
        found: list[Row] = []
        for start in range(0, len(products), _PRODUCTS_AT_A_TIME):
            some = map(encode_product, products[start : start + _PRODUCTS_AT_A_TIME])
            found += map(
                from_fields,
                self._milvus.query(self._name, one_of(PRODUCT, some), fields, at=self._at, timeout=self._timeout),
            )
        return found

    def _store(self, changes: Changes) -> None:
        before = self._state
        state = State(
            self._writer,
            before.generation + 1,
            before.points + changes.points,
            before.products + changes.products,
            before.tombstones + changes.tombstones,
            len(changes.puts),
        )
        self._ledger.write(state, changes.buried)
        for some in _chunks([encode_key(*key) for key in changes.gone]):
            self._milvus.delete(self._name, one_of(KEY, some), timeout=self._timeout)
        if changes.puts:
            largest = max(len(row.record.payload) + len(row.newer or "") for row in changes.puts)
            self._milvus.upsert(
                self._name,
                [to_fields(row, state.generation) for row in changes.puts],
                # The payload travels as base64 and as JSON; the rest is keys.
                row_bytes=4 * self._dim + 4 * largest + 4_096,
                timeout=self._timeout,
            )
        self._ledger.dig_up(changes.dug_up)
        if changes.gone or changes.dug_up:
            # Milvus 2.3 does not tell the time of a delete. That of a write after it does as well.
            self._ledger.write(state, {})
        if self._flush:
            self._milvus.flush(self._name)
            self._milvus.flush(self._ledger.name)
        at = self._ledger.last_write()
        if changes.puts:
            at = max(at, self._milvus.last_write(self._name))
        self._read_back(state, at)

    def _read_back(self, state: State, at: int) -> None:
        """Waits until everything written up to `at` can be seen, in both collections, and lets searches see it."""
        self._milvus.query(self._name, f'{KEY} == ""', (KEY,), at=at, timeout=self._timeout)
        seen, _ = self._ledger.read(at=at)
        check_writer(seen, self._writer)
        self._state, self._at, self._sure = state, at, True
        self._publish(View(state.generation, state.points, state.products, state.tombstones, at))

    def _recover(self) -> None:
        """Learns what became of a commit that failed."""
        state, _ = self._ledger.read()
        checked = self._ledger.checked(check_writer(state, self._writer))
        self._ledger.write(checked, {})
        self._read_back(checked, self._ledger.last_write())


def _product(operation: Operation) -> str:
    return operation.record.product_id if isinstance(operation, Put) else operation.product_id


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _KEYS_AT_A_TIME] for start in range(0, len(keys), _KEYS_AT_A_TIME))
