"""The lexicon, a snapshot and a query against their meaning, on random histories: real files, no process."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.indexer.memory import Memory
from services.indexer.records import Put, Record, Remove, Update
from services.indexer.schema import create_database
from services.indexer.store import Store
from services.indexer.text import index as text_index
from services.indexer.text import process
from services.indexer.text.index import TextIndex
from services.indexer.text.lexicon import LexiconReader
from services.indexer.text.process import TextJob, Workshop
from services.indexer.text.search import read_text_query, search_text
from services.indexer.text.words import words_of
from tests.indexer.shard import DIM, collection_spec
from vitrine.attributes import map_to_proto, to_proto
from vitrine.errors import DeadlineError
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2

# None begins with another, and none changes when its English ending goes.
WORDS = ["oak", "chair", "lamp", "red", "sofa", "eos", "crib", "24", "Ångström"]
VECTOR = np.ones(DIM, np.float32)

texts = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
attributes = st.fixed_dictionaries(
    {}, optional={"title": texts, "tags": st.lists(texts, max_size=2), "price": st.integers(0, 3)}
)
product_ids = st.sampled_from(["a", "b", "c", "d", "é", "\U0010ffff"])
image_ids = st.sampled_from(["1", "2"])
operations = st.one_of(
    st.tuples(st.just("put"), product_ids, image_ids, attributes),
    st.tuples(st.just("remove"), product_ids, st.sampled_from(["", "1", "2"]), st.none()),
    st.tuples(st.just("update"), product_ids, st.sampled_from(["", "1"]), attributes),
)
commits = st.lists(st.lists(operations, min_size=1, max_size=4), max_size=6)
queries = st.tuples(
    st.lists(st.sampled_from([*WORDS, "chai", "unknown", "lam"]), min_size=1, max_size=3),
    st.sampled_from([None, "price >= 2", "not price = 1", 'tags = "oak"']),
    st.sets(product_ids, max_size=2),
    st.integers(1, 8),
)


class Model:
    """What is stored, in plain dictionaries; sizes are small, so that nothing needs to be fast."""

    def __init__(self):
        self.images = {}

    def apply(self, kind, product, image, values):
        keys = [key for key in self.images if key[0] == product and image in ("", key[1])]
        match kind:
            case "put":
                self.images[product, image] = dict(values)
            case "remove":
                for key in keys:
                    del self.images[key]
            case "update":
                for key in keys:
                    self.images[key] |= values

    def words(self, product):
        strings = []
        for (owner, _), values in self.images.items():
            if owner == product:
                strings += [values.get("title", ""), *values.get("tags", [])]
        return {word for string in strings for word in string.casefold().replace("å", "a").replace("ö", "o").split()}

    def found(self, words, condition, excluded):
        products = {product for product, _ in self.images}
        every = {word for product in products for word in self.words(product)}
        plain = {word.casefold().replace("å", "a").replace("ö", "o") for word in words}
        wanted = {
            word
            for asked in plain
            for word in every
            if word == asked or (asked not in every and len(asked) >= 4 and word.startswith(asked))
        }
        holds = {
            None: lambda values: True,
            "price >= 2": lambda values: values.get("price", -1) >= 2,
            "not price = 1": lambda values: values.get("price") != 1,
            'tags = "oak"': lambda values: "oak" in values.get("tags", []),
        }[condition]
        found = {}
        for (product, image), values in sorted(self.images.items()):
            if product not in excluded and self.words(product) & wanted and holds(values):
                found.setdefault(product, image)
        return found


class Parts:
    """The parts of a shard that a text search goes through, in one thread."""

    def __init__(self, folder):
        self.database = folder / "points.db"
        create_database(self.database, collection_spec())
        self.store = Store(self.database)
        self.memory = Memory(capacity=16, dim=DIM)
        self.snapshot = self.memory.finish_restore(0, 0)
        self.workshop = Workshop()
        self.job = TextJob(kind="open", database=self.database, folder=folder / "text")
        self.file = self.workshop.do(self.job).file
        self.version = 1

    def operation(self, kind, product, image, values):
        self.version += 1
        match kind:
            case "put":
                payload = indexer_pb2.Point(attributes=map_to_proto(values)).SerializeToString()
                return Put(Record(product, image, self.version, payload), VECTOR)
            case "remove":
                return Remove(product, image, self.version)
            case "update":
                changes = {name: to_proto(value) for name, value in values.items()}
                return Update(product, image, self.version, changes)

    def commit(self, batch, *, feed=True):
        commit = self.store.commit([self.operation(*each) for each in batch])
        self.snapshot = self.memory.apply(commit)
        if feed:
            self.do("update", products=sorted(commit.products), generation=commit.generation)

    def do(self, kind, **fields):
        answer = self.workshop.do(self.job.model_copy(update={"kind": kind, "file": self.file, **fields}))
        assert answer.error is None
        return answer

    def scan(self):
        answer = self.do("scan")
        while answer.after is not None:
            answer = self.do("scan", after=answer.after, generation=answer.generation)
        return answer

    def documents(self):
        return self.workshop._open[self.job.folder / self.file].between("", None)

    def search(self, words, condition=None, excluded=(), k=100, deadline=np.inf):
        request = indexer_pb2.SearchTextRequest(text=" ".join(words), k=k, exclude_product_ids=excluded)
        if condition is not None:
            request.filter.CopyFrom(parse(condition))
        query = read_text_query(request, self.memory.products)
        with closing(LexiconReader(self.job.folder / self.file)) as lexicon:
            return search_text(
                self.snapshot,
                self.memory.products,
                lexicon,
                query,
                with_attributes=False,
                deadline=deadline,
                submitted=time.perf_counter(),
            )

    def close(self):
        self.workshop.do(self.job.model_copy(update={"kind": "close", "file": self.file}))
        self.store.close()


@pytest.fixture(scope="module")
def make_parts(tmp_path_factory):
    def make():
        return closing(Parts(tmp_path_factory.mktemp("parts")))

    return make


@given(history=commits, asked=st.lists(queries, min_size=1, max_size=4), missed=st.integers(0, 6))
@settings(max_examples=60)
def test_searches_find_what_the_model_says(make_parts, history, asked, missed):
    model = Model()
    with make_parts() as parts:
        for number, batch in enumerate(history):
            # What was not fed is found by the comparison, whatever came after.
            parts.commit(batch, feed=number != missed)
            for each in batch:
                model.apply(*each)
        if missed < len(history):
            parts.scan()
        for words, condition, excluded, k in asked:
            response = parts.search(words, condition, excluded, k)
            right = model.found(words, condition, excluded)
            hits = {hit.key.product_id: hit.key.image_id for hit in response.hits}
            assert hits.items() <= right.items()
            assert len(response.hits) == len(hits) == min(k, len(right))
            order = [(-hit.score, hit.key.product_id) for hit in response.hits]
            assert order == sorted(order)


@given(history=commits, slice_size=st.integers(1, 5))
@settings(max_examples=40)
def test_a_comparison_makes_of_any_lexicon_what_one_built_anew_is(make_parts, history, slice_size):
    with make_parts() as parts, pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_POINTS_OF_A_SLICE", slice_size)
        for number, batch in enumerate(history):
            parts.commit(batch, feed=number < len(history) // 2)
        answer = parts.scan()
        compared = parts.documents()
        assert answer.generation == parts.store.generation
        parts.file = parts.workshop.do(parts.job.model_copy(update={"fresh": True})).file
        assert parts.documents() == {}
        parts.scan()
        assert parts.documents() == compared
        assert answer.documents == len(compared)


@pytest.mark.parametrize("slice_size", [1, 2, 3, 4, 5])
def test_a_product_with_images_on_both_sides_of_a_slice_is_one_document(make_parts, monkeypatch, slice_size):
    monkeypatch.setattr(process, "_POINTS_OF_A_SLICE", slice_size)
    with make_parts() as parts:
        words = {("a", "1"): "oak", ("b", "1"): "chair", ("b", "2"): "lamp", ("b", "3"): "red", ("c", "1"): "sofa"}
        parts.commit([("put", *key, {"title": word}) for key, word in words.items()], feed=False)
        parts.scan()
        for (product, _), word in words.items():
            assert [hit.key.product_id for hit in parts.search([word]).hits] == [product]


@pytest.mark.parametrize("order", ["abcd", "dcba", "cadb"])
def test_equal_products_come_by_id_in_whatever_order_they_arrived(make_parts, order):
    with make_parts() as parts:
        for product in order:
            parts.commit([("put", product, "1", {"title": "oak"})])
        assert [hit.key.product_id for hit in parts.search(["oak"], k=3).hits] == ["a", "b", "c"]


@given(st.text(max_size=200))
def test_words_are_letters_and_digits_and_stay_what_they_are(text):
    words = list(words_of(text))
    for word in words:
        assert word
        assert len(word) <= 64
        assert not any(char.isspace() or char in "\"'*^:(){}-\0" for char in word)
        assert next(words_of(word)) == word or not word.isascii()
    assert list(words_of(text.upper())) == list(words_of(text.upper().lower()))


def test_a_deadline_ends_a_search(make_parts):
    with make_parts() as parts:
        parts.commit([("put", "a", "1", {"title": "oak"})])
        assert len(parts.search(["oak"]).hits) == 1
        with pytest.raises(DeadlineError):
            parts.search(["oak"], deadline=time.perf_counter() - 1)


async def test_too_many_changes_at_once_are_compared_instead(make_parts, monkeypatch):
    monkeypatch.setattr(text_index, "_MAX_CHANGED", 3)
    with make_parts() as parts:
        index = TextIndex("things", parts.database, 0)
        try:
            for number in range(5):
                batch = [("put", f"p{number}{each}", "1", {"title": "oak"}) for each in range(2)]
                parts.commit(batch, feed=False)
                index.changed(parts.store.generation, {each[1] for each in batch})
            index.published(asyncio.get_running_loop().time())
            kinds = []
            while index.due() is not None:
                job = index.next_job()
                kinds.append(job.kind)
                index.done(job, parts.workshop.do(job))
                if len(kinds) == 1:
                    assert index.reached == -1
            # Opened and compared once, and once more for the changes that came while nobody looked.
            assert kinds == ["open", "scan", "scan"]
            assert index.reached == parts.store.generation
            parts.file = index.reader.path.name
            assert len(parts.search(["oak"]).hits) == 10
        finally:
            index.stop()
