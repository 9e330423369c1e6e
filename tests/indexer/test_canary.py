"""The recall canary counts what live searches miss, by how much their filter leaves."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.indexer import metrics
from services.indexer.canary import Canary
from services.indexer.filtering import AttributeFilter
from services.indexer.queries import Position, Query
from services.indexer.search import search
from tests.indexer.shard import FINGERPRINT, point, random_vectors
from tests.indexer.test_search import COSINE, DIM, Index
from tests.watching import scrape
from vitrine import vectors
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def index(tmp_path):
    built = Index(tmp_path, capacity=100)
    for number, vector in enumerate(random_vectors(300, DIM)):
        built.add(f"p{number}", "i", vector, n=number)
    return built


def answer(hits):
    return indexer_pb2.VectorQueryResult(
        hits=[indexer_pb2.ProductHit(key={"product_id": hit.record.product_id}, score=hit.score) for hit in hits]
    )


def counted(name, band):
    return tuple(int(each.labels(name, band)._value.get()) for each in (metrics.CANARY_FOUND, metrics.CANARY_EXPECTED))


@pytest.mark.parametrize(
    ("condition", "band"), [(None, "unfiltered"), ("n < 100", "20-50 %"), ("n < 12", "2-5 %"), ("n < 2", "0-1 %")]
)
async def test_what_an_answer_lacks_is_counted(index, threads, condition, band):
    condition = None if condition is None else AttributeFilter(parse(condition))
    query = Query(index.live[1][2].astype("float32"), 10, condition)
    ((exact,), _) = search(index.snapshot, [query], metric=COSINE, ef=1, exact=True, check=lambda: None)
    given_way = []
    for missing in (0, 1):
        name = f"canary-{band}-{missing}"
        canary = Canary(threads, 1_000.0, lambda: given_way.append(1))
        canary.consider(index.snapshot, query, answer(exact[missing:]), metric=COSINE, name=name)
        canary.consider(index.snapshot, query, answer([]), metric=COSINE, name=name)  # not due again so soon
        await canary._running
        assert counted(name, band) == (len(exact) - missing, len(exact))
    assert given_way


async def test_pages_are_left_alone_and_zero_switches_it_off(index, threads):
    query = Query(index.live[1][2].astype("float32"), 10, after=Position(0.0, "p"))
    for canary, each in ((Canary(threads, 1.0), query), (Canary(threads, 0.0), Query(query.vector, 10))):
        canary.consider(index.snapshot, each, answer([]), metric=COSINE, name="off")
        assert canary._running is None


async def test_a_shard_exports_it(shard):
    async with shard(canary_seconds=0.01, segment_points=100) as running:
        await running.create()
        await running.store([point(f"p{i}", "i", each, version=1) for i, each in enumerate(random_vectors(300))])
        query = indexer_pb2.VectorQuery(vector=vectors.to_proto(random_vectors(1)[0], FINGERPRINT), k=5)
        request = indexer_pb2.IndexerSearchRequest(collection="things", queries=[query])
        wanted = r'vitrine_indexer_canary_found_total\{collection="things",selectivity="unfiltered"\} (\d+)'
        async with asyncio.timeout(30):
            while True:
                await running.stub.Search(request)
                if (found := re.search(wanted, await scrape(running.metrics_port))) and int(found[1]) >= 5:
                    break
        assert 'vitrine_indexer_canary_expected_total{collection="things",selectivity="unfiltered"}' in await scrape(
            running.metrics_port
        )
