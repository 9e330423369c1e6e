"""A group decided for Milvus must end like the same group committed to the embedded engine."""

from __future__ import annotations

import random

import numpy as np
import pytest

from services.indexer.milvus.decisions import decide
from services.indexer.milvus.rows import MAX_PAYLOAD_BYTES, Row
from services.indexer.records import Put, Record, Remove, Update
from services.indexer.rules import ArrivalClock
from services.indexer.schema import create_database
from services.indexer.store import Store
from tests.indexer.shard import DIM, collection_spec
from vitrine.attributes import map_to_proto
from vitrine.v1 import indexer_pb2


class Kept:
    """What Milvus would hold after each group."""

    def __init__(self):
        self.rows, self.tombstones, self.counts = {}, {}, [0, 0, 0]
        self.clock = ArrivalClock()

    def commit(self, operations):
        changes = decide(operations, self.rows.values(), self.tombstones, self.clock)
        for put in changes.puts:
            self.rows[put.record.product_id, put.record.image_id] = put
        for key in changes.gone:
            del self.rows[key]
        self.tombstones |= changes.buried
        for key in changes.dug_up:
            del self.tombstones[key]
        self.counts = [
            before + more
            for before, more in zip(self.counts, (changes.points, changes.products, changes.tombstones), strict=True)
        ]
        return changes.outcomes


def put(product, image, version, **attributes):
    payload = indexer_pb2.Point(attributes=map_to_proto(attributes)).SerializeToString(deterministic=True)
    return Put(Record(product, image, version, payload), np.full(DIM, 0.5, np.float32))


def operation(rng):
    product, image, version = f"p{rng.randrange(3)}", f"i{rng.randrange(3)}", rng.randrange(1, 30)
    match rng.randrange(4):
        case 0 | 1:
            return put(product, image, version, price=rng.randrange(9), name="n")
        case 2:
            return Remove(product, rng.choice([image, ""]), version)
        case _:
            changes = {"price": map_to_proto({"x": rng.randrange(9)})["x"], "name": None, "sale": None}
            chosen = rng.sample(sorted(changes), rng.randrange(1, 3))
            return Update(product, rng.choice([image, ""]), version, {name: changes[name] for name in chosen})


@pytest.mark.parametrize("seed", range(30))
def test_the_same_writes_end_the_same_on_both_engines(tmp_path, seed):
    rng = random.Random(seed)
    create_database(tmp_path / "points.db", collection_spec())
    store, kept = Store(tmp_path / "points.db"), Kept()
    for _ in range(20):
        group = [operation(rng) for _ in range(rng.randrange(1, 8))]
        commit = store.commit(group)
        assert kept.commit(group) == commit.outcomes
        with store.reader() as reader:
            stored = [record for rows in reader.all() for _, record in rows]
        assert sorted((each.product_id, each.image_id, each.version, _attributes(each)) for each in stored) == sorted(
            (each.record.product_id, each.record.image_id, each.record.version, _attributes(each.record))
            for each in kept.rows.values()
        )
        assert kept.counts == [len(stored), len({each.product_id for each in stored}), commit.tombstones]
        assert len(kept.tombstones) == commit.tombstones
    store.close()


def _attributes(record):
    return sorted((name, repr(value)) for name, value in record.attributes().items())


def test_what_milvus_cannot_hold_is_refused_and_a_row_never_outgrows_it():
    kept = Kept()
    large = map_to_proto({"x": "v" * (MAX_PAYLOAD_BYTES // 3)})["x"]
    assert kept.commit([put("p", "i", 5)]) == [1]
    assert kept.commit([Update("p", "i", 6, {"a": large, "b": large})]) == [1]
    assert kept.commit([Update("p", "i", 7, {"c": large})]) == [-3]
    # An older upsert keeps what updates have set since, beside all of its own.
    assert kept.commit([put("p", "i", 5, own="o" * 8_000)]) == [1]
    [row] = kept.rows.values()
    assert isinstance(row, Row)
    assert set(row.record.attributes()) == {"a", "b", "own"}
    assert len(row.record.payload) <= 2 * MAX_PAYLOAD_BYTES
