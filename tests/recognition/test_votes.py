"""Votes are shares of the neighbours' weight, for values that neighbours share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine import attributes
from vitrine.recognition.votes import vote
from vitrine.v1 import common_pb2, indexer_pb2


def hit(score, **values):
    return indexer_pb2.ProductHit(
        key=common_pb2.PointKey(product_id="P"), score=score, attributes=attributes.map_to_proto(values)
    )


def told(hits):
    return {each.attribute: (attributes.from_proto(each.value), each.confidence) for each in vote(hits)}


values = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", True, False, 3, 2.5]), max_size=3)
hits = st.lists(st.builds(lambda score, some: hit(score, **some), st.floats(-1, 1, width=32), values), max_size=20)


@given(hits, st.randoms(use_true_random=False))
def test_confidence_is_a_share_and_order_does_not_matter(neighbours, random):
    votes = vote(neighbours)
    assert all(0 <= each.confidence <= 1 for each in votes)
    assert [each.confidence for each in votes] == sorted((each.confidence for each in votes), reverse=True)
    random.shuffle(neighbours)
    shuffled = told(neighbours)
    assert shuffled.keys() == {each.attribute for each in votes}
    for each in votes:
        assert shuffled[each.attribute][1] == pytest.approx(each.confidence, abs=1e-6)


def test_nearer_neighbours_weigh_more():
    near, far = [hit(0.9, category="Lamp")] * 2, [hit(0.5, category="Chair")] * 4
    value, confidence = told([*near, *far])["category"]
    assert value == "Lamp"
    assert confidence > 0.9


def test_neighbours_without_the_attribute_agree_with_nobody():
    assert told([hit(0.5, condition="used"), hit(0.5, condition="used"), hit(0.5), hit(0.5)]) == {
        "condition": ("used", pytest.approx(0.5))
    }


def test_only_values_that_are_shared_are_voted_on():
    neighbours = [hit(0.5, title=f"Lamp {n}", new=n > 1, price=n / 2, count=n) for n in range(4)]
    assert told(neighbours) == {"new": (False, pytest.approx(0.5))}  # a tie goes to the value that sorts first


def test_nobody_to_ask():
    assert vote([]) == []
