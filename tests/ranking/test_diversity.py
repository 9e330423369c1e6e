"""Maximal marginal relevance against its definition, and what holds for every order it gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.ranking.candidates import candidate, context, names
from vitrine.ranking.diversity import Diversity, marginal_relevance, similarities

# Exact in binary, so that no sum below depends on the order of its terms.
STEPS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@st.composite
def problems(draw):
    size = draw(st.integers(1, 7))
    relevance = draw(arrays(np.float32, size, elements=STEPS))
    relevance[draw(st.integers(0, size - 1))] = 0.0  # with the next line: scaling changes nothing
    relevance[draw(st.integers(0, size - 1))] = 1.0
    half = draw(arrays(np.float32, (size, size), elements=STEPS))
    similarity = np.maximum(half, half.T)
    np.fill_diagonal(similarity, 1.0)
    tiers = draw(arrays(np.int64, size, elements=st.integers(0, 2)))
    chosen = draw(st.lists(st.integers(0, size - 1), unique=True, max_size=size))
    return relevance, similarity, tiers, chosen, draw(st.integers(0, size + 2))


def by_definition(relevance, similarity, tiers, chosen, diversity, count):
    low, high = relevance.min(), relevance.max()
    scaled = (relevance - low) / (high - low) if high > low else np.zeros(len(relevance))
    order = list(chosen)
    while len(order) < count and len(order) < len(relevance):
        left = [index for index in range(len(relevance)) if index not in order]
        open_now = [index for index in left if tiers[index] == min(tiers[each] for each in left)]
        order.append(
            max(
                open_now,
                key=lambda index: (
                    (1 - diversity) * scaled[index]
                    - diversity * max((similarity[index][each] for each in order), default=0),
                    -index,
                ),
            )
        )
    return order + [index for index in range(len(relevance)) if index not in order]


@given(problems(), STEPS)
def test_it_is_its_definition(problem, diversity):
    relevance, similarity, tiers, chosen, count = problem
    order = marginal_relevance(relevance, similarity, tiers, chosen, diversity=diversity, count=count)
    assert sorted(order) == list(range(len(relevance)))
    assert order[: len(chosen)] == chosen
    picked = [tiers[index] for index in order[len(chosen) : count]]
    assert picked == sorted(picked)
    expected = by_definition(relevance.astype(np.float64), similarity, tiers, chosen, diversity, count)
    if relevance.min() == 0:
        assert order == expected


@given(problems())
def test_without_diversity_it_is_the_order_of_relevance(problem):
    relevance, similarity, tiers, _, _ = problem
    size = len(relevance)
    order = marginal_relevance(relevance, similarity, tiers, [], diversity=0.0, count=size)
    assert order == sorted(range(size), key=lambda index: (tiers[index], -relevance[index], index))


def test_a_missing_vector_is_like_nothing():
    rows = [np.array(row, np.float32) for row in ([3, 0], [0, 0], [1, 1])]
    found = similarities([rows[0], None, rows[1], rows[2]])
    np.testing.assert_allclose(found, [[1, 0, 0, 0.5**0.5], [0, 0, 0, 0], [0, 0, 0, 0], [0.5**0.5, 0, 0, 1]], atol=1e-6)
    assert similarities([None]).shape == (1, 1)


async def test_twins_give_way_and_pages_go_on_where_they_ended():
    vectors = {
        "best": np.array([1.0, 0.0, 0.0], np.float32),
        "twin": np.array([1.0, 0.01, 0.0], np.float32),
        "other": np.array([0.0, 1.0, 0.0], np.float32),
        "third": np.array([0.0, 0.0, 1.0], np.float32),
    }
    candidates = [candidate("best", 0.9), candidate("twin", 0.89), candidate("other", 0.7), candidate("third", 0.5)]
    stage = Diversity(0.5)
    whole = await stage.rank(candidates, context(vectors=vectors))
    assert names(whole) == ["best", "other", "third", "twin"]
    assert [each.score for each in whole] == [0.9, 0.7, 0.5, 0.89]
    assert whole[1].steps[-1].note == "from 3 to 2"
    second = await stage.rank(candidates, context(vectors=vectors, returned={"best", "other"}))
    assert names(second)[2:] == names(whole)[2:]
    assert await stage.rank([], context(vectors=vectors)) == []
