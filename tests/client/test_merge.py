"""The ranking merge, against the definition in one line of Python."""

from hypothesis import given
from hypothesis import strategies as st

from vitrine.merge import merge_hits
from vitrine.v1 import common_pb2, indexer_pb2

SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0])
HITS = st.lists(st.tuples(st.sampled_from("ABCDE"), st.sampled_from("xyz"), SCORES), max_size=12)


def hit(product, image, score):
    return indexer_pb2.ProductHit(key=common_pb2.PointKey(product_id=product, image_id=image), score=score)


def rows(hits):
    return [(each.key.product_id, each.key.image_id, each.score) for each in hits]


@given(st.lists(HITS, max_size=4), st.integers(1, 8), st.randoms())
def test_best_image_of_each_product_best_first(shards, k, random):
    every = sorted((row for shard in shards for row in shard), key=lambda row: (-row[2], row[0], row[1]))
    expected = [row for index, row in enumerate(every) if row[0] not in {earlier[0] for earlier in every[:index]}][:k]
    answers = [[hit(*row) for row in shard] for shard in shards]
    assert rows(merge_hits(answers, k)) == expected
    random.shuffle(answers)
    assert rows(merge_hits(answers, k)) == expected
