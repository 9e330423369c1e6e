"""What the products nearest to a photo say of its attributes: a weighted vote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from vitrine.v1 import indexer_pb2, search_pb2

# A neighbour whose score is this much lower counts 1/e. At it the winner's share was as high as it was often right
# (docs/recognition.md).
_SCORE_SCALE = 0.1
_KINDS = ("string_value", "bool_value")
# Values that next to nobody shares, as titles and part numbers, say nothing of another product.
_HOLDERS_PER_VALUE = 2


def vote(neighbours: Sequence[indexer_pb2.ProductHit]) -> list[search_pb2.AttributeVote]:
    """Returns for each attribute the value that most of the neighbours' weight is for, surest first.

    Attributes with strings and truth values count, where a value has on average two neighbours or more. Neighbours
    without the attribute count against every value.

    Args:
        neighbours: With attributes and scores, in any order.
    """
    if not neighbours:
        return []
    scores = np.array([hit.score for hit in neighbours], np.float64)
    weights = np.exp((scores - scores.max()) / _SCORE_SCALE)
    weights /= weights.sum()
    shares: dict[str, dict[str | bool, float]] = defaultdict(lambda: defaultdict(float))
    holders: dict[str, int] = defaultdict(int)
    for hit, weight in zip(neighbours, weights, strict=True):
        for name, value in hit.attributes.items():
            if (kind := value.WhichOneof("kind")) in _KINDS:
                shares[name][getattr(value, kind)] += float(weight)
                holders[name] += 1
    votes = []
    for name, by_value in shares.items():
        if holders[name] >= _HOLDERS_PER_VALUE * len(by_value):
            # Equal shares go to the value that sorts first, whatever order the shards answered in.
            winner, share = min(by_value.items(), key=lambda each: (-each[1], str(each[0])))
            votes.append(_vote(name, winner, min(share, 1.0)))
    return sorted(votes, key=lambda each: (-each.confidence, each.attribute))


def _vote(name: str, value: str | bool, share: float) -> search_pb2.AttributeVote:
    told = search_pb2.AttributeVote(attribute=name, confidence=share)
    if isinstance(value, bool):
        told.value.bool_value = value
    else:
        told.value.string_value = value
    return told
