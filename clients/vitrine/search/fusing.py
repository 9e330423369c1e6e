"""Makes one list of candidates of what was found by vector and by words."""

from __future__ import annotations

from collections.abc import Sequence

from vitrine.merge import reciprocal_rank_fusion
from vitrine.ranking.candidates import Candidate, Step
from vitrine.v1 import indexer_pb2

Hits = Sequence[indexer_pb2.ProductHit]


def fuse(nearest: Hits | None, worded: Hits | None, *, nearest_weight: float, text_weight: float) -> list[Candidate]:
    """Returns candidates, best first.

    By vector alone a candidate's score is its likeness. With words, scores of the two kinds are not comparable: it is
    the weighted reciprocal ranks (`vitrine.merge`), above 0 and at most 1, and the image is the most alike one where
    there is one.

    Args:
        nearest: The nearest products, best first; None: the query has no vector.
        worded: The products whose words match, best first; None: the query has no text.
        nearest_weight: Share of the first.
        text_weight: Share of the second.
    """
    if worded is None:
        return [
            Candidate(hit, hit.score, steps=(Step("image", hit.score, f"image {hit.key.image_id}"),))
            for hit in nearest or ()
        ]
    sources = [("image", nearest or (), nearest_weight), ("text", worded, text_weight)]
    rankings = [(stage, hits, weight) for stage, hits, weight in sources if hits]
    scores = reciprocal_rank_fusion([([hit.key.product_id for hit in hits], weight) for _, hits, weight in rankings])
    found: dict[str, indexer_pb2.ProductHit] = {}
    steps: dict[str, tuple[Step, ...]] = {}
    for stage, hits, _ in rankings:
        for rank, hit in enumerate(hits, start=1):
            product_id = hit.key.product_id
            found.setdefault(product_id, hit)
            steps[product_id] = (*steps.get(product_id, ()), Step(stage, hit.score, f"rank {rank}"))
    return [
        Candidate(found[product_id], score, steps=(*steps[product_id], Step("fusion", score, "reciprocal ranks")))
        for product_id, score in scores.items()
    ]
