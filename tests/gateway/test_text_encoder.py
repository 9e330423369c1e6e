"""A text encoder plugged into the real gateway: what it finds, and what is found without it."""

from contextlib import asynccontextmanager

import numpy as np
import pytest
import pytest_asyncio

from services.local.stack import Ports, Stack
from tests.conftest import STEADY
from tests.gateway.encoders import ROWS, SPACE, BagOfWords, Returning
from tests.gateway.test_search import Watching, ids, old_shard
from tests.gateway.things import Things, attributes, name
from vitrine import AsyncVitrine, ProductPart, Ranking, TextPart, VectorPart
from vitrine.engine import SearchEngine
from vitrine.errors import InvalidArgumentError, NotFoundError, UnimplementedError
from vitrine.search.combining import weighted_sum
from vitrine.v1 import search_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCTS = 160
OTHER_SPACE = "cd" * 32
INCOMPLETE = [search_pb2.DEGRADED_REASON_TEXT_INCOMPLETE]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def things(tmp_path_factory, tiny_model):
    """Collections `joint`, of the encoder's embedding space, and `plain`, of another, with the same vectors."""
    environment = STEADY | {"VITRINE_GATEWAY_TEXT_ENCODER": "tests.gateway.encoders:BagOfWords"}
    folder = tmp_path_factory.mktemp("text-encoder")
    stack = Stack(folder, shards=1, ports=Ports.free(1), model_dir=tiny_model, environment=environment)
    async with stack.supervisor:
        await stack.start()
        for collection, space in (("plain", OTHER_SPACE), ("joint", SPACE)):
            async with Things(stack, space, ROWS.shape[1]) as things:
                await things.create(collection)
                await things.store(things.points(), collection)
        async with things:
            yield things


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(things):
    async with AsyncVitrine(things.stack.gateway) as client:
        yield client


@asynccontextmanager
async def engine(things, encoder, *, shards=None, **options):
    """A gateway in this process."""
    engine = SearchEngine(things.stack.embedder, shards or things.stack.indexers, text_encoder=encoder, **options)
    yield engine
    await engine.close()


def by_text(text, collection="joint", **fields):
    return search_pb2.SearchRequest(collection=collection, query=[search_pb2.QueryPart(text=text)], **fields)


def products(response):
    return [each.product_id for each in response.results]


async def test_a_text_finds_what_no_word_names(things, client):
    answer = await client.search("joint", text="comfortable loud", k=5, explain=True, with_images=True)
    expected = things.ranked(ROWS[0] + ROWS[3])
    assert ids(answer) == [product for product, _ in expected[:5]]
    assert [(step.stage, pytest.approx(step.score, abs=1e-4)) for step in answer.products[0].explanation] == [
        ("image", expected[0][1]),
        ("fusion", answer.products[0].score),
    ]
    assert answer.products[0].images[0].score == pytest.approx(expected[0][1], abs=1e-4)
    assert (answer.fingerprint, answer.degraded) == (SPACE, [])
    assert "encode_text" in answer.timings
    async with engine(things, None) as without:
        assert products(await without.search(by_text("comfortable loud"), 30.0)) == []


async def test_words_count_beside_the_vector_of_the_text(things, client):
    answer = await client.search("joint", text="loud red sofa", k=PRODUCTS, explain=True)
    stages = {each.product_id: {step.stage for step in each.explanation} for each in answer.products}
    assert all("image" in of_product for of_product in stages.values())
    # As many candidates by words as by vector: those with both words are all among them.
    titled = [product for product in stages if attributes(int(product[1:]))["title"] == "red sofa"]
    assert titled
    assert all("text" in stages[product] for product in titled)


async def test_a_text_is_added_to_the_other_parts(things, client):
    for weight in (0.3, 3.0):
        parts = [ProductPart(name(7)), VectorPart(things.proto(things.first_axis), -0.5), TextPart("sharp", weight)]
        answer = await client.search("joint", parts=parts, k=10)
        rows = np.stack([things.rows[7, 0], things.first_axis, ROWS[2]])
        query = weighted_sum(rows, np.array([1, -0.5, weight], np.float32))
        assert ids(answer) == [product for product, _ in things.ranked(query, without={name(7)})[:10]]


async def test_pages_by_text_alone_are_one_list(things, client):
    ranking = Ranking(candidates=PRODUCTS)
    whole = await client.search("joint", text="sharp sofa", k=PRODUCTS, ranking=ranking)
    pages = [page async for page in client.search_pages("joint", text="sharp sofa", k=50, ranking=ranking)]
    assert [each for page in pages for each in ids(page)] == ids(whole)
    assert len(whole.products) == PRODUCTS
    with pytest.raises(InvalidArgumentError, match="page_token belongs to another request"):
        await client.search("joint", text="sharp lamp", page_token=pages[0].next_page_token, ranking=ranking)


async def test_in_another_embedding_space_a_text_is_words_only(things, client):
    async with engine(things, None) as without:
        words = await without.search(by_text("loud sofa", "plain"), 30.0)
    alone = await client.search("plain", text="loud sofa")
    assert ids(alone) == products(words)
    assert (alone.fingerprint, alone.degraded) == ("", [])
    beside = await client.search("plain", product_id=name(7), text="loud")
    plain = await client.search("plain", product_id=name(7))
    assert ids(beside) == ids(plain)
    assert (beside.fingerprint, beside.degraded) == (OTHER_SPACE, [])
    # What is refused for another reason than the vector is refused still.
    with pytest.raises(InvalidArgumentError, match="text"):
        await client.search("plain", text="!?")
    with pytest.raises(NotFoundError, match="no collection 'nowhere'"):
        await client.search("nowhere", text="loud")


@pytest.mark.parametrize(
    ("made", "kind"), [(RuntimeError("broken"), RuntimeError), (ROWS[0][:5], InvalidArgumentError)]
)
async def test_what_fails_is_left_out_and_said(things, made, kind):
    watching = Watching()
    async with engine(things, None) as without:
        words = await without.search(by_text("sofa"), 30.0)
    async with engine(things, Returning(made), answer_observer=watching) as failing:
        response = await failing.search(by_text("sofa"), 30.0)
        assert products(response) == products(words)
        assert (list(response.degraded), response.fingerprint) == (INCOMPLETE, "")
        assert watching.skipped == [("encode_text", kind)]


async def test_without_full_text_the_vector_of_the_text_is_enough(things):
    async with old_shard() as old:
        async with engine(things, BagOfWords(), shards=[old]) as working:
            assert list((await working.search(by_text("loud"), 30.0)).degraded) == INCOMPLETE
        async with engine(things, Returning(RuntimeError("broken")), shards=[old]) as failing:
            with pytest.raises(UnimplementedError, match="no shard of this index has a full-text index"):
                await failing.search(by_text("loud"), 30.0)
