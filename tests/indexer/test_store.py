"""The store against an in-memory model, on a real database."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.indexer.records import Put, Record, Remove
from services.indexer.schema import create_database
from services.indexer.store import Store
from tests.indexer.shard import collection_spec
from vitrine.errors import DataLossError, NotFoundError, UnavailableError

PRODUCTS = st.sampled_from(["p", "q"])
IMAGES = st.sampled_from(["a", "b", "c"])
VERSIONS = st.integers(1, 6)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), PRODUCTS, IMAGES, VERSIONS),
    st.tuples(st.just("remove"), PRODUCTS, IMAGES | st.just(""), VERSIONS),
)


class Model:
    """Remembers, for each key, every write there was, and works out what must be stored."""

    def __init__(self):
        self.points = {}
        self.deleted = {}

    def put(self, product, image, version):
        graves = [self.deleted.get((product, each), 0) for each in (image, "")]
        if version <= max(graves) or version < self.points.get((product, image), 0):
            return 0
        self.points[product, image] = version
        return 1

    def remove(self, product, image, version):
        gone = [
            key
            for key, stored in self.points.items()
            if key[0] == product and image in ("", key[1]) and stored <= version
        ]
        for key in gone:
            del self.points[key]
        self.deleted[product, image] = max(version, self.deleted.get((product, image), 0))
        return len(gone)


@pytest.fixture
def path(tmp_path):
    create_database(tmp_path / "points.db", collection_spec(dim=2))
    return tmp_path / "points.db"


def operation(kind, product, image, version):
    if kind == "remove":
        return Remove(product, image, version)
    return Put(Record(product, image, version, b""), np.array([version, 0], np.float32))


def stored(store):
    with store.reader() as reader:
        rows = [row for rows in reader.all() for row in rows]
        for label, record in rows:
            assert reader.vector(label).tolist() == [record.version, 0]
    return {(record.product_id, record.image_id): record.version for _, record in rows}


@given(st.lists(st.lists(OPERATIONS, min_size=1, max_size=6), max_size=6))
def test_groups_of_writes_and_deletes_end_as_the_model_says(groups):
    model = Model()
    labels = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.db"
        create_database(path, collection_spec(dim=2))
        store = Store(path)
        generation = 0
        for group in groups:
            live_before = dict(live_labels(store))
            commit = store.commit([operation(*each) for each in group])
            assert commit.outcomes == [getattr(model, kind)(*rest) for kind, *rest in group]
            assert stored(store) == model.points
            # What memory is told adds up to what is on disk, and no label comes twice.
            live_after = dict(live_labels(store))
            assert live_before.keys() - live_after.keys() == set(commit.removed)
            assert live_after.keys() - live_before.keys() == set(commit.added)
            assert not labels & set(commit.added)
            labels |= set(commit.added)
            assert generation <= commit.generation <= generation + 1
            generation = commit.generation
            assert commit.tombstones == tombstones(path)
        store.close()
        again = Store(path)
        assert (stored(again), again.generation, again.tombstones) == (model.points, generation, tombstones(path))
        again.close()


def live_labels(store):
    with store.reader() as reader:
        return [row for rows in reader.all() for row in rows]


def tombstones(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT COUNT(*) FROM tombstones").fetchone()[0]
    finally:
        connection.close()


def test_a_product_delete_guards_images_never_seen(path):
    store = Store(path)
    store.commit([Remove("p", "", 5)])
    assert store.commit([operation("put", "p", "new", 5)]).outcomes == [0]
    assert store.commit([operation("put", "p", "new", 6)]).outcomes == [1]
    assert store.commit([operation("put", "p", "other", 4)]).outcomes == [0]  # the guard stays for the others
    store.close()


def test_only_stale_writes_make_no_generation(path):
    store = Store(path)
    first = store.commit([operation("put", "p", "a", 5)])
    again = store.commit([operation("put", "p", "a", 4), Remove("p", "a", 3)])
    assert (first.generation, again.generation, again.outcomes) == (1, 1, [0, 0])
    store.close()


def test_a_write_without_version_after_a_delete_without_version_is_stored(path):
    store = Store(path)
    put = Put(Record("p", "a", 0, b""), np.zeros(2, np.float32))
    commit = store.commit([put, Remove("p", "", 0), put, Remove("p", "a", 0), put, put])
    assert commit.outcomes == [1, 1, 1, 1, 1, 1]
    store.close()


def test_a_failed_commit_stores_nothing_and_the_next_one_works(path):
    store = Store(path)
    store.commit([operation("put", "p", "a", 1)])
    page_count = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={page_count}")  # the disk is full
    many = [operation("put", "q", f"image-{index}", 1) for index in range(500)]
    with pytest.raises(UnavailableError, match="nothing was stored"):
        store.commit(many)
    assert stored(store) == {("p", "a"): 1}
    store._writer.execute("PRAGMA max_page_count=1000000")
    commit = store.commit(many)
    assert (commit.generation, sum(commit.outcomes)) == (2, 500)
    assert len(stored(store)) == 501
    store.close()


@pytest.mark.parametrize("table", ["points", "vectors"])
def test_changed_bytes_are_noticed(path, table):
    store = Store(path)
    store.commit([operation("put", "p", "a", 3)])
    column = {"points": "version = 4", "vectors": "vector = zeroblob(8)"}[table]
    store._writer.execute(f"UPDATE {table} SET {column}")
    with store.reader() as reader, pytest.raises(DataLossError):
        for label, _ in reader.image("p", "a"):
            reader.vector(label)
    store.close()


def test_a_file_that_is_no_database_is_data_loss(tmp_path):
    (tmp_path / "points.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DataLossError, match=r"points\.db"):
        Store(tmp_path / "points.db")


def test_another_format_version_is_refused(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(DataLossError, match="format version 99"):
        Store(path)


def test_readers_see_one_state_and_end_with_the_store(path):
    store = Store(path)
    store.commit([operation("put", "p", "a", 1)])
    with store.reader() as reader:
        assert reader.generation() == 1
        store.commit([operation("put", "p", "a", 2)])
        assert reader.generation() == 1
        assert reader.image("p", "a")[0][1].version == 1
        store.close()
        assert reader.image("p", "a")[0][1].version == 1
    with pytest.raises(NotFoundError, match="was dropped"), store.reader():
        pass
