"""Keys and rows: what goes into Milvus comes back, in the same order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.indexer.milvus.rows import Row, decode_key, encode_key, encode_product, from_fields, one_of, to_fields
from services.indexer.milvus.schema import milvus_name, our_name
from services.indexer.records import Record
from tests.indexer.shard import random_vectors

ids = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="\x7f"), min_size=1)


@given(st.lists(st.tuples(ids, st.one_of(ids, st.just(""))), max_size=20))
def test_keys_sort_as_pairs_of_ids_do_and_come_back(pairs):
    assert [decode_key(key) for key in sorted(encode_key(*pair) for pair in pairs)] == sorted(pairs)


@given(ids)
def test_no_id_can_end_an_expression(product):
    assert one_of("product", [encode_product(product)]).count('"') == 2


def test_a_row_comes_back():
    vector = random_vectors(1, 8)[0]
    row = Row(Record("p", "ü", 7, b""), '{"a": 9}', vector)
    back = from_fields(to_fields(row, 3))
    assert (back.record.product_id, back.record.image_id, back.record.version, back.newer) == ("p", "ü", 7, '{"a": 9}')
    assert (back.vector == vector).all()


@given(st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True))
def test_names_come_back_and_are_names_in_milvus(name):
    assert our_name(milvus_name(name)) == name
    assert milvus_name(name).replace("_", "a").isalnum()
