"""Candidates for tests of the ranking, without an index."""

from vitrine.attributes import map_to_proto
from vitrine.ranking.candidates import Candidate, Context
from vitrine.v1 import common_pb2, indexer_pb2


def candidate(product, score=1.0, tier=0, **attributes):
    key = common_pb2.PointKey(product_id=product, image_id="x")
    hit = indexer_pb2.ProductHit(key=key, score=score, attributes=map_to_proto(attributes))
    return Candidate(hit, score, tier)


def context(*, needed=1_000, vectors=None, returned=(), user_key=""):
    async def read(candidates):
        return {each.product_id: (vectors or {})[each.product_id] for each in candidates if each.product_id in vectors}

    return Context("things", needed, read, user_key, frozenset(returned))


def names(candidates):
    return [each.product_id for each in candidates]
