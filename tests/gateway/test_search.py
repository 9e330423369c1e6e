"""Searches through the real gateway, checked against answers worked out here."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import pytest_asyncio

from services.local.stack import Ports, Stack
from tests.conftest import STEADY
from tests.gateway.things import PRODUCTS, Things, attributes, describe_model, name, picture
from tests.watching import scrape
from vitrine import AsyncVitrine, ImagePart, ProductPart, Ranking, TextPart, VectorPart, Vitrine
from vitrine.engine import SearchEngine
from vitrine.errors import (
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    UnimplementedError,
)
from vitrine.fanout.policy import ShardPolicy
from vitrine.merge import reciprocal_rank_fusion
from vitrine.search.combining import weighted_sum
from vitrine.search.observing import NoObserver
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc, search_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
[gateway.ranking.shelf]
in_stock_attribute = "in_stock"
caps = { brand = 4 }

[gateway.ranking.things-of-own-name]
boosts = [{ filter_text = 'brand = "B"', amount = 1.0 }]
candidates = 1000
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def things(tmp_path_factory, tiny_model):
    """A whole Vitrine with the collection `things`, which every test leaves as it was."""
    folder = tmp_path_factory.mktemp("things")
    (folder / "vitrine.toml").write_text(CONFIG)
    environment = STEADY | {
        "VITRINE_CONFIG": str(folder / "vitrine.toml"),
        "VITRINE_GATEWAY_TASTE": "tests.gateway.scorers:create_taste",
    }
    stack = Stack(folder, ports=Ports.free(2), model_dir=tiny_model, environment=environment)
    async with stack.supervisor:
        await stack.start()
        async with Things(stack, *await describe_model(stack)) as things:
            await things.create("things")
            await things.store(things.points())
            yield things


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(things):
    async with AsyncVitrine(things.stack.gateway) as client:
        yield client


@asynccontextmanager
async def engine(things, *, shards=None, **options):
    """A gateway in this process."""
    engine = SearchEngine(things.stack.embedder, shards or things.stack.indexers, **options)
    yield engine
    await engine.close()


def found(answer):
    return [(each.product_id, pytest.approx(each.score, abs=1e-4)) for each in answer.products]


def ids(answer):
    return [each.product_id for each in answer.products]


def by_vector(things, vector, **fields):
    part = search_pb2.QueryPart(vector=things.proto(vector))
    return search_pb2.SearchRequest(collection="things", query=[part], **fields)


async def test_parts_are_added_up_by_weight(things, client):
    one, other = picture(1), picture(2)
    first, second = await things.embed(one, other)
    stored, axis = things.rows[30, 0], things.first_axis
    parts = [
        ImagePart(one),
        ImagePart(other, weight=-0.5),
        ProductPart(name(30), weight=2.0),
        VectorPart(things.proto(axis), weight=0.25),
    ]
    answer = await client.search("things", parts=parts, k=20)
    query = weighted_sum(np.stack([first, second, stored, axis]), np.array([1, -0.5, 2, 0.25], np.float32))
    assert things.ranked(query, without={name(30)})[:20] == found(answer)
    assert {"embed", "lookup", "index", "merge"} <= set(answer.timings)
    assert answer.collection == "things"
    assert answer.fingerprint == things.fingerprint
    assert answer.products[0].attributes == attributes(int(answer.products[0].product_id[1:]))

    # The second image of a product is another query than the first, and the product is left out either way.
    view = await client.search("things", product_id=name(30), image_id="I1", k=PRODUCTS)
    assert things.ranked(things.rows[30, 1], without={name(30)}) == found(view)
    both = await client.search("things", product_id=[name(30), name(31)], k=5)
    query = things.rows[30, 0] + things.rows[31, 0]
    assert things.ranked(query, without={name(30), name(31)})[:5] == found(both)


async def test_a_query_that_makes_no_sense_is_refused(things, client):
    image = picture(1)
    (vector,) = await things.embed(image)
    with pytest.raises(InvalidArgumentError, match="cancel each other out"):
        await client.search("things", parts=[ImagePart(image), VectorPart(things.proto(vector), weight=-1)])
    alien = things.proto(vector)
    alien.fingerprint = "cd" * 32
    with pytest.raises(PreconditionError, match=r"query\[1\] is of another embedding space"):
        await client.search("things", parts=[ImagePart(image), VectorPart(alien)])
    with pytest.raises(PreconditionError, match="fingerprint"):
        await client.search("things", vector=alien)
    with pytest.raises(InvalidArgumentError, match=r"query\[1\]: .*jpeg, png, webp") as caught:
        await client.search("things", image=[image, b"no picture"])
    assert caught.value.violations
    with pytest.raises(NotFoundError, match="no product 'P999' in collection 'things'"):
        await client.search("things", product_id=[name(1), "P999"])
    with pytest.raises(NotFoundError, match="no collection 'nowhere'"):
        await client.search("nowhere", text="sofa")
    with pytest.raises(InvalidArgumentError, match="text"):
        await client.search("things", text="!?")
    for options, told in (
        ({}, "nothing to search by"),
        ({"image": [image, image], "box": (0, 0, 1, 1)}, "box needs one image, got 2"),
        ({"text": "sofa", "auto_crop": True}, "auto_crop needs an image"),
        ({"product_id": [name(1), name(2)], "image_id": "I1"}, "image_id needs one product_id"),
    ):
        with pytest.raises(InvalidArgumentError, match=told):
            await client.search("things", **options)


async def test_words_alone_and_beside_a_vector(things, client):
    words = await client.search("things", text="red sofa", k=PRODUCTS)
    matching = {name(number) for number in range(PRODUCTS) if number % 3 == 0 or number % 5 == 0}
    assert set(ids(words)) == matching
    assert {each.attributes["title"] for each in words.products[: len(range(0, PRODUCTS, 15))]} == {"red sofa"}
    by_rank = [61 / (60 + rank) for rank in range(1, len(matching) + 1)]
    assert [each.score for each in words.products] == pytest.approx(by_rank)
    assert (words.coverage.shards_answered, words.coverage.points) == (2, 2 * PRODUCTS)
    assert words.collection == "things"
    assert "text" in words.timings

    vector = things.proto(things.first_axis)
    alike = await client.search("things", vector=vector, k=PRODUCTS)
    fused = await client.search(
        "things", parts=[VectorPart(vector, weight=3.0), TextPart("red sofa", weight=0.5)], k=PRODUCTS, explain=True
    )
    expected = reciprocal_rank_fusion([(ids(alike), 3.0), (ids(words), 0.5)])
    assert [(product, pytest.approx(score)) for product, score in expected.items()] == [
        (each.product_id, each.score) for each in fused.products
    ]
    assert fused.degraded == []
    for each in fused.products:
        stages = [step.stage for step in each.explanation]
        assert stages == (["image", "text", "fusion"] if each.product_id in matching else ["image", "fusion"])
        assert each.explanation[0].note == f"rank {ids(alike).index(each.product_id) + 1}"
        assert each.explanation[-1].score == each.score
    narrowed = await client.search("things", vector=vector, text="red sofa", filter="price < 10", k=PRODUCTS)
    assert set(ids(narrowed)) == {name(number) for number in range(20)}


async def test_pages_are_one_list_cut_up(things, client):
    vector = things.proto(things.rows[80, 0])
    for options in (
        {},
        {"text": "blue lamp", "ranking": Ranking(candidates=PRODUCTS)},
        {"ranking": Ranking(in_stock_attribute="in_stock", boosts={'brand = "B"': 0.2}, caps={"brand": 20})},
        {"ranking": Ranking(diversity=0.4, candidates=PRODUCTS)},
    ):
        whole = await client.search("things", vector=vector, k=PRODUCTS, **options)
        assert not whole.next_page_token
        pages = [page async for page in client.search_pages("things", vector=vector, k=23, **options)]
        assert [each for page in pages for each in ids(page)] == ids(whole)
        assert [each.rank for page in pages for each in page.products] == list(range(1, len(whole.products) + 1))
        assert all(len(page.products) == 23 for page in pages[:-1])


async def test_no_product_appears_twice_whatever_is_written_between_pages(things, client):
    vector = things.proto(things.first_axis)
    first = await client.search("things", vector=vector, k=10)
    shown = ids(first)
    # New ones before all others, a shown one pushed to the end, a shown one and the next ones gone.
    new = [things.point(f"new-{number}", "I0", things.first_axis, number) for number in range(3)]
    moved = [things.point(shown[0], f"I{image}", -things.first_axis, 0, version=2) for image in range(2)]
    await things.store([*new, *moved])
    gone = [shown[3], *[product for product, _ in things.ranked(things.first_axis)[10:12]]]
    await things.delete(*gone)
    try:
        rest = [
            page async for page in client.search_pages("things", vector=vector, k=40, page_token=first.next_page_token)
        ]
        later = [each for page in rest for each in ids(page)]
        everything = {name(number) for number in range(PRODUCTS)} | {"new-0", "new-1", "new-2"}
        assert len(set(shown + later)) == len(shown + later)
        assert set(later) == everything - set(shown) - set(gone)
        assert rest[0].products[0].rank == 11
    finally:
        await things.delete("new-0", "new-1", "new-2")
        restored = [each for each in things.points() if each.key.product_id in {shown[0], *gone}]
        for each in restored:
            each.version = 2**40 + 1
        await things.store(restored)


async def test_a_token_is_of_its_request_only(things, client):
    image, other = picture(1), picture(2)
    token = (await client.search("things", image=image, k=5)).next_page_token
    same = await client.search("things", image=image, k=7, explain=True, page_token=token)
    assert [each.rank for each in same.products] == list(range(6, 13))
    for options in ({"image": other}, {"image": image, "filter": "price > 1"}, {"image": image, "text": "sofa"}):
        with pytest.raises(InvalidArgumentError, match="page_token belongs to another request"):
            await client.search("things", page_token=token, **options)
    with pytest.raises(InvalidArgumentError, match="page_token is no page token"):
        await client.search("things", image=image, page_token=token[:-1])
    token = (await client.search("things", text="sofa", k=5)).next_page_token
    with pytest.raises(InvalidArgumentError, match="page_token belongs to another request"):
        await client.search("things", text="lamp", page_token=token)


@pytest.mark.parametrize("metric", [indexer_pb2.METRIC_COSINE, indexer_pb2.METRIC_L2, indexer_pb2.METRIC_INNER_PRODUCT])
async def test_all_images_of_each_product_with_their_scores(things, client, metric):
    await things.create("few", metric)
    rows = 1.5 * things.rows[:20]
    points = [
        things.point(name(number), f"I{image}", rows[number, image], number)
        for number in range(20)
        for image in range(2)
    ]
    await things.store(points, "few")
    try:
        query = 2 * things.rows[90, 0]
        answer = await client.search("few", vector=things.proto(query), k=20, with_images=True)
        for each in answer.products:
            own = rows[int(each.product_id[1:])]
            scores = {
                indexer_pb2.METRIC_COSINE: own @ query / 3,
                indexer_pb2.METRIC_L2: -((own - query) ** 2).sum(axis=1),
                indexer_pb2.METRIC_INNER_PRODUCT: own @ query,
            }[metric]
            order = sorted(range(2), key=lambda image: -scores[image])
            assert [(match.image_id, match.image_uri) for match in each.images] == [
                (f"I{image}", f"file:///{each.product_id}/I{image}.png") for image in order
            ]
            assert [match.score for match in each.images] == pytest.approx([scores[image] for image in order], abs=1e-4)
            assert each.images[0].image_id == each.image_id
            assert each.images[0].score == pytest.approx(each.score, abs=1e-4)
        assert "images" in answer.timings
        words = await client.search("few", text="sofa", with_images=True)
        assert [match.image_id for match in words.products[0].images] == ["I0", "I1"]
    finally:
        for stub in things.stubs:
            await stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="few"))


async def test_what_is_configured_for_a_name_ranks_until_a_request_says_otherwise(things, client):
    await things.alias("shelf", "things")
    vector = things.proto(things.first_axis)
    answer = await client.search("shelf", vector=vector, k=8, explain=True)
    expected = []
    for wanted in (True, False):
        for product, _ in things.ranked(things.first_axis):
            own = attributes(int(product[1:]))
            taken = sum(attributes(int(each[1:]))["brand"] == own["brand"] for each in expected)
            if own["in_stock"] is wanted and taken < 4:
                expected.append(product)
    assert ids(answer) == expected == [each for each in expected if attributes(int(each[1:]))["in_stock"]]
    assert answer.collection == "things"
    assert {"in_stock", "cap"} <= set(answer.timings)
    assert [step.stage for step in answer.products[0].explanation] == ["image", "in_stock", "cap"]
    assert answer.products[0].explanation[-1].note == "1 of 4 with brand A"
    # Brand B is far down: more candidates were asked for until the page was full.
    ranks = {product: rank for rank, (product, _) in enumerate(things.ranked(things.first_axis))}
    assert min(ranks[product] for product in ids(answer)[4:]) > 99

    plain = await client.search("shelf", vector=vector, k=8, ranking=Ranking(replace=True))
    assert ids(plain) == [product for product, _ in things.ranked(things.first_axis)[:8]]
    uncapped = await client.search("shelf", vector=vector, k=8, ranking=Ranking(caps={"brand": 1000}))
    assert all(attributes(int(each[1:]))["in_stock"] for each in ids(uncapped))
    assert {attributes(int(each[1:]))["brand"] for each in ids(uncapped)} == {"A"}


async def test_what_is_configured_for_a_collections_own_name_ranks_its_aliases_too(things, client):
    await things.create("things-of-own-name")
    await things.store(things.points(), "things-of-own-name")
    await things.alias("newest", "things-of-own-name")
    answer = await client.search("newest", vector=things.proto(things.first_axis), k=10)
    assert {attributes(int(each[1:]))["brand"] for each in ids(answer)} == {"B"}
    assert answer.products[0].score > 1


async def test_taste_is_asked_only_where_somebody_is_named(things, client):
    vector = things.proto(things.first_axis)
    ranking = Ranking(candidates=PRODUCTS)
    nobody = await client.search("things", vector=vector, ranking=ranking)
    ann = await client.search("things", vector=vector, ranking=ranking, user_key="ann", explain=True)
    assert "taste" not in nobody.timings
    assert {attributes(int(each[1:]))["brand"] for each in ids(ann)} == {"B"}
    assert ann.products[0].explanation[-1].stage == "taste"


async def test_diversity_is_that_of_the_stored_vectors(things, client):
    vector = things.proto(things.first_axis)
    answer = await client.search("things", vector=vector, k=5, ranking=Ranking(diversity=1.0, candidates=50))
    pool = things.ranked(things.first_axis)[:50]
    best = {product: things.rows[int(product[1:])] for product, _ in pool}
    chosen = {product: rows[np.argmax(rows[:, 0])] for product, rows in best.items()}
    expected = [pool[0][0]]
    while len(expected) < 5:
        left = [product for product, _ in pool if product not in expected]
        expected.append(min(left, key=lambda product: max(chosen[product] @ chosen[each] for each in expected)))
    assert ids(answer) == expected


async def test_facets_count_the_candidates(things, client):
    vector = things.proto(things.first_axis)
    answer = await client.search("things", vector=vector, facets=["rooms", "brand", "none"], k=3)
    pool = [attributes(int(product[1:])) for product, _ in things.ranked(things.first_axis)[:100]]
    counted = {name: [(each.value, each.count) for each in counts] for name, counts in answer.facets.items()}
    assert counted == {
        "rooms": [(room, sum(room in each["rooms"] for each in pool)) for room in ("hall", "kitchen")],
        "brand": [("A", sum(each["brand"] == "A" for each in pool))],
        "none": [],
    }


async def test_recommendations_follow_what_was_liked(things, client):
    liked, disliked = [name(3), name(5), "P999"], [name(150)]
    answer = await client.recommend("things", liked, disliked=disliked, k=30, filter="price < 70")
    directions = 0.75 * (things.rows[3, 0] + things.rows[5, 0]) / 2 - 0.15 * things.rows[150, 0]
    without = {*liked, *disliked, *(name(number) for number in range(140, PRODUCTS))}
    assert things.ranked(directions, without=without)[:30] == found(answer)
    ranked = await client.recommend("things", liked, k=5, ranking=Ranking(boosts={'brand = "B"': 1.0}, candidates=1000))
    assert {attributes(int(each[1:]))["brand"] for each in ids(ranked)} == {"B"}
    with pytest.raises(NotFoundError, match="none of the 1 liked is in collection 'things'"):
        await client.recommend("things", ["P999"])
    with pytest.raises(NotFoundError, match="no collection 'nowhere'"):
        await client.recommend("nowhere", [name(3)])


async def test_a_caller_reads_its_own_writes(things, client):
    generations = await things.store([things.point("just-now", "I0", things.first_axis, 0)])
    try:
        vector = things.proto(things.first_axis)
        answer = await client.search("things", vector=vector, min_generations=generations)
        assert answer.products[0].product_id == "just-now"
        words = await client.search("things", text="red", k=PRODUCTS, min_generations=generations)
        assert "just-now" in ids(words)
        (shard, generation) = next(iter(generations.items()))
        future = {shard: generation + 1_000}
        late = await client.search("things", vector=vector, text="red", min_generations=future, timeout=1.0)
        assert late.degraded == ["shard_timed_out", "text_incomplete"]
        assert late.coverage.shards_answered == 1
        # However many ask for what cannot be: the shard stays in service for everybody else.
        impossible = (
            client.search("things", vector=vector, min_generations=future, timeout=1.0)
            for _ in range(ShardPolicy().breaker_failures)
        )
        assert all(each.degraded == ["shard_timed_out"] for each in await asyncio.gather(*impossible))
        whole = await client.search("things", vector=vector)
        assert (whole.coverage.shards_answered, whole.degraded) == (2, [])
    finally:
        await things.delete("just-now")


class Watching(NoObserver):
    def __init__(self):
        self.answers = []
        self.skipped = []

    def answered(self, answered):
        self.answers.append(answered)

    def stage_skipped(self, stage, error):
        self.skipped.append((stage, type(error)))


class Scorer:
    def __init__(self, trouble):
        self._trouble = trouble

    async def scores(self, candidates, context):
        if self._trouble == "late":
            await asyncio.sleep(600)
        raise RuntimeError(self._trouble)


@pytest.mark.parametrize(("trouble", "kind"), [("broken", RuntimeError), ("late", TimeoutError)])
async def test_a_stage_that_fails_or_is_late_is_left_out(things, trouble, kind):
    watching = Watching()
    async with engine(things, features=Scorer(trouble), stage_seconds=0.1, answer_observer=watching) as searching:
        response = await searching.search(by_vector(things, things.first_axis, user_key="bob"), 30.0)
    assert list(response.degraded) == [search_pb2.DEGRADED_REASON_STAGE_SKIPPED]
    products = [each.product_id for each in response.results]
    assert products == [product for product, _ in things.ranked(things.first_axis)[:10]]
    assert watching.skipped == [("features", kind)]
    (answered,) = watching.answers
    assert (answered.query_id, answered.collection, answered.kind) == (response.query_id, "things", "vector")
    assert (answered.product_ids, answered.user_key) == (tuple(products), "bob")


class OldShard(indexer_pb2_grpc.IndexerServicer):
    """A shard that has nothing, and knows no full text."""

    async def Search(self, request, context):
        return indexer_pb2.IndexerSearchResponse(results=[indexer_pb2.VectorQueryResult(exhausted=True)])

    async def SearchText(self, request, context):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not known here")


@asynccontextmanager
async def old_shard():
    server = grpc.aio.server()
    indexer_pb2_grpc.add_IndexerServicer_to_server(OldShard(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_shard_without_full_text_is_never_passed_over_in_silence(things):
    words = search_pb2.QueryPart(text="sofa")
    beside = by_vector(things, things.first_axis)
    beside.query.append(words)
    alone = search_pb2.SearchRequest(collection="things", query=[words])
    async with old_shard() as old:
        async with engine(things, shards=[things.stack.indexers[0], old]) as half:
            response = await half.search(beside, 30.0)
            assert list(response.degraded) == [search_pb2.DEGRADED_REASON_TEXT_INCOMPLETE]
            assert response.coverage.shards_answered == 2
            response = await half.search(alone, 30.0)
            assert list(response.degraded) == [
                search_pb2.DEGRADED_REASON_SHARD_FAILED,
                search_pb2.DEGRADED_REASON_TEXT_INCOMPLETE,
            ]
            assert (response.coverage.shards_answered, response.coverage.shards_failed) == (1, 1)
            assert len(response.results) == 10
            for request in (alone, beside):
                request.allow_partial = False
                with pytest.raises(UnavailableError):
                    await half.search(request, 30.0)
        async with engine(things, shards=[old, old]) as none:
            beside.ClearField("allow_partial")
            response = await none.search(beside, 30.0)
            assert list(response.degraded) == [search_pb2.DEGRADED_REASON_TEXT_INCOMPLETE]
            alone.ClearField("allow_partial")
            with pytest.raises(UnimplementedError, match="no shard of this index has a full-text index"):
                await none.search(alone, 30.0)


async def test_what_a_dead_shard_costs_and_what_it_does_not(things, client):
    vector = things.proto(things.first_axis)
    await things.stack.supervisor.kill("indexer-1")
    try:
        answer = await client.search("things", vector=vector, text="sofa", with_images=True)
        assert {"shard_failed", "text_incomplete"} <= set(answer.degraded)
        assert answer.products
        assert all(len(each.images) == 2 for each in answer.products)
        alone = await client.search("things", text="sofa")
        assert alone.degraded in (["shard_failed", "text_incomplete"], ["shard_skipped", "text_incomplete"])
        with pytest.raises(UnavailableError):
            await client.search("things", vector=vector, allow_partial=False)
        with pytest.raises(UnavailableError):
            await client.search("things", text="sofa", min_coverage=1.0)
    finally:
        await things.stack.supervisor.restart("indexer-1")
        while (await client.search("things", vector=vector)).degraded:
            await asyncio.sleep(0.1)


async def test_the_synchronous_client_and_the_gateways_metrics(things):
    def work():
        with Vitrine(things.stack.gateway) as shop:
            pages = shop.search_pages("things", text="clock", k=10)
            first = ids(next(pages))
            rest = [each for page in pages for each in ids(page)]
            return first, rest, shop.recommend("things", [name(3)], k=4)

    first, rest, recommended = await asyncio.to_thread(work)
    assert len(first) == 10
    assert len(set(first + rest)) == len(first + rest) == len(range(4, PRODUCTS, 5))
    assert len(recommended.products) == 4
    ports = things.stack.ports
    text = await scrape(ports.metrics[ports.gateway])
    for line in (
        'vitrine_gateway_searches_total{query="text"}',
        'vitrine_gateway_searches_total{query="recommend"}',
        'vitrine_gateway_stage_seconds_count{stage="text"}',
    ):
        assert line in text
