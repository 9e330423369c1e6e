"""The ranking merge, against the definition in one line of Python."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine.merge import interleave_hits, merge_hits, reciprocal_rank_fusion
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


@st.composite
def rankings_by_shard(draw):
    """Rankings of shards, each product on one of them, scores falling within a shard."""
    products = draw(st.lists(st.integers(0, 99).map(lambda number: f"P{number:02}"), unique=True, max_size=12))
    shards = [[] for _ in range(draw(st.integers(1, 4)))]
    for product in products:
        draw(st.sampled_from(shards)).append(product)
    return [
        [
            hit(product, "x", score)
            for product, score in zip(shard, sorted(draw(scores(len(shard))), reverse=True), strict=True)
        ]
        for shard in shards
    ]


def scores(count):
    return st.lists(st.sampled_from([0.5, 1.0, 2.5, 8.0]), min_size=count, max_size=count)


@given(rankings_by_shard(), st.integers(1, 12), st.randoms())
def test_interleaving_takes_every_shards_best_first_whatever_the_order_of_the_shards(shards, k, random):
    ranks = {each.key.product_id: rank for shard in shards for rank, each in enumerate(shard)}
    found = interleave_hits(shards, k)
    assert len(found) == min(k, len(ranks))
    of_found = [ranks[each.key.product_id] for each in found]
    assert of_found == sorted(of_found) == sorted(ranks.values())[:k]
    for shard in shards:  # within a shard, its own order
        own = [each.key.product_id for each in shard]
        assert [each.key.product_id for each in found if each.key.product_id in own] == own[: len(own)][
            : sum(each.key.product_id in own for each in found)
        ]
    random.shuffle(shards)
    assert rows(interleave_hits(shards, k)) == rows(found)


RANKING = st.tuples(
    st.lists(st.sampled_from("ABCDEFGH"), unique=True, max_size=8),
    st.floats(0.1, 10, allow_nan=False),
)


@given(st.lists(RANKING, min_size=1, max_size=3))
def test_fusion_is_the_sum_of_weighted_reciprocal_ranks(rankings):
    fused = reciprocal_rank_fusion(rankings)
    exact = {}
    for products, weight in rankings:
        for rank, product in enumerate(products, start=1):
            exact[product] = exact.get(product, 0) + Fraction(weight) / (60 + rank)
    best = sum(Fraction(weight) for _, weight in rankings) / 61
    assert fused == pytest.approx({product: float(score / best) for product, score in exact.items()})
    assert all(0 < score <= 1 for score in fused.values())
    assert list(fused) == sorted(fused, key=lambda product: (-fused[product], product))


@given(RANKING)
def test_fusing_one_ranking_changes_no_order(ranking):
    products, _ = ranking
    assert list(reciprocal_rank_fusion([ranking])) == products


@given(RANKING, st.lists(st.sampled_from("ABCDEFGH"), unique=True, max_size=8))
def test_a_product_that_rises_in_one_ranking_never_falls_in_the_fusion(ranking, other):
    products, weight = ranking
    before = reciprocal_rank_fusion([(products, weight), (other, 1.0)])
    for index in range(1, len(products)):
        risen = [*products]
        risen[index - 1], risen[index] = risen[index], risen[index - 1]
        after = reciprocal_rank_fusion([(risen, weight), (other, 1.0)])
        assert list(after).index(products[index]) <= list(before).index(products[index])
