"""SearchText on a real shard: what is found, in which order, and that everything acknowledged before is considered."""

from __future__ import annotations

import grpc
import pytest

from tests.indexer.engines import milvus_only
from tests.indexer.shard import key, point, random_vectors
from vitrine.attributes import map_to_proto
from vitrine.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnimplementedError,
    from_rpc_error,
)
from vitrine.filters import parse
from vitrine.v1 import filter_pb2, indexer_pb2

VECTORS = random_vectors(64, seed=5)


def images(product, count=1, **attributes):
    return [point(product, f"i{number}", VECTORS[number], **attributes) for number in range(count)]


def update(product, image="", *, unset=(), **attributes):
    return indexer_pb2.AttributeUpdate(key=key(product, image), set=map_to_proto(attributes), unset=unset)


def products(hits):
    return [product for product, _ in hits]


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_words_of_every_string_are_found_whatever_their_form(shard):
    async with shard() as running:
        await running.create()
        await running.store(
            [
                *images("camera", title="Canon EOS 5", tags=["reflex camera", "tripod"], price=35.0, year=1992),
                *images("shirt", title="T-Shirts, crème", brand="Müller & Söhne", in_stock=True),
                *images("lens", title="Zoom 24-70mm f/2.8", sku="AB_1234/c"),
                *images("street", title="Straßenlampe"),
                *images("eastern", title="отличный диван", note="黒い革のソファ"),
                *images("nothing", price=3, weight=2.5),
            ]
        )
        found = {
            "cameras": "camera", "CAMERA": "camera", "came": "camera", "eos5": "camera", "eos-5 body": "camera",
            "tripods for": "camera", "tshirt": "shirt", "t shirt": "shirt", "T-SHIRT": "shirt", "creme": "shirt",
            "Creme": "shirt", "muller": "shirt", "sohne": "shirt", "70 mm": "lens", "70mm": "lens", "24": "lens",
            "2.8": "lens", "f2": "lens", "1234": "lens", "strassenlampe": "street", "Straßen": "street",
            "ДИВАН": "eastern", "革の": "eastern", "ソファ": "eastern",
        }  # fmt: skip
        answers = {text: products(await running.text(text)) for text in found}
        assert {text: hits[:1] for text, hits in answers.items()} == {text: [right] for text, right in found.items()}
        # Numbers and truth values are no words, and attributes' names are none of a product's.
        for text in ("1992", "true", "title", "tri"):
            assert await running.text(text) == []


async def test_products_come_best_first_and_equal_ones_by_id(shard):
    async with shard() as running:
        await running.create()
        titles = {
            "both": "oak chair", "chair": "oak bench", "rare": "teak bench", "seen": "pine bench", "said": "ash stool",
            **{f"other{number}": "oak table" for number in range(9)},
        }  # fmt: skip
        points = [each for product, title in titles.items() for each in images(product, title=title)]
        points.reverse()  # no order of arrival is the order of ids
        points += images("tagged", title="beech box", tags=["stool"])
        await running.store(points)
        assert products(await running.text("oak chair", k=20))[0] == "both"
        assert products(await running.text("oak teak"))[0] == "rare", "a rare word counts for more"
        equal = products(await running.text("table", k=20))
        assert equal == sorted(equal) == [f"other{number}" for number in range(9)]
        assert products(await running.text("table", k=4)) == equal[:4]
        assert products(await running.text("stool")) == ["said", "tagged"], "a model's guess counts for less"
        request = indexer_pb2.SearchTextRequest(collection="things", text="oak chair", k=20, with_attributes=True)
        answer = await running.stub.SearchText(request)
        scores = [hit.score for hit in answer.hits]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) > 0
        assert answer.hits[0].attributes["title"].string_value == "oak chair"
        assert answer.points == len(points)
        assert answer.generation == (await running.describe()).generation
        assert [each.stage for each in answer.timings] == ["wait", "queue", "filter", "text", "answer"]


async def test_a_product_is_one_document_whatever_its_images_repeat(shard):
    async with shard() as running:
        await running.create()
        await running.store(
            [
                *images("many", 6, title="brass lamp"),
                *images("one", 1, title="brass lamp"),
                *images("padding", 1, title="wooden spoon"),
                *images("more", 1, title="wooden bowl"),
                point("parts", "a", VECTORS[0], title="sofa", colour="red"),
                point("parts", "b", VECTORS[1], title="sofa", colour="green"),
            ]
        )
        request = indexer_pb2.SearchTextRequest(collection="things", text="lamp", k=5)
        hits = (await running.stub.SearchText(request)).hits
        assert [(hit.key.product_id, hit.key.image_id) for hit in hits] == [("many", "i0"), ("one", "i0")]
        assert hits[0].score == hits[1].score
        # A product has the words of all its images, and a hit names the first image that passes the filter.
        assert await running.text("green") == [("parts", "a")]
        assert await running.text("sofa", filter=parse('colour = "green"')) == [("parts", "b")]
        assert await running.text("red", filter=parse('colour = "green"')) == [("parts", "b")]
        await running.delete(("parts", "a"))
        assert await running.text("sofa") == [("parts", "b")]
        assert await running.text("red") == []


async def test_every_change_is_seen_by_the_next_search(shard):
    async with shard() as running:
        await running.create()
        words = [f"{first}{second}q" for first in "abcd" for second in "bcdfghjklm"]
        for number, word in enumerate(words):
            product = f"p{number % 4}"
            await running.store(images(product, title=word))
            assert products(await running.text(word)) == [product]
            if number >= 4:
                assert await running.text(words[number - 4]) == [], "it says something else by now"
        await running.update(update("p1", title="settee"))
        assert products(await running.text("settee")) == ["p1"]
        await running.update(update("p1", "i0", unset=["title"]))
        assert await running.text("settee") == []
        await running.update(update("p1", title=7), update("p2", title="divan", price=3))
        assert products(await running.text("divan")) == ["p2"]
        assert products(await running.text("divan", filter=parse("price > 2"))) == ["p2"]
        await running.update(update("p2", price=1))
        assert await running.text("divan", filter=parse("price > 2")) == []
        generation = (await running.delete(("p2",))).generation
        assert await running.text("divan", min_generation=generation) == []
        await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))
        assert isinstance(await refusal(running.text(words[-1])), NotFoundError)
        await running.create()
        assert await running.text(words[-1]) == []


async def test_k_products_are_returned_while_k_match(shard):
    async with shard(segment_points=64) as running:
        await running.create()
        await running.store(
            [each for number in range(300) for each in images(f"p{number:03}", title="oak chair", n=number)]
        )
        await running.delete(*((f"p{number:03}",) for number in range(0, 300, 3)))
        live = [f"p{number:03}" for number in range(300) if number % 3]
        assert products(await running.text("chairs", k=1_000)) == live
        assert products(await running.text("chairs", k=7, exclude_product_ids=live[:50])) == live[50:57]
        rare = parse("n >= 290")
        assert products(await running.text("chairs", k=1_000, filter=rare)) == [each for each in live if each >= "p290"]
        alias = indexer_pb2.SetAliasRequest(alias="live", collection="things")
        await running.stub.SetAlias(alias)
        assert products(await running.text("chairs", k=2, collection="live")) == live[:2]


HOSTILE = [
    '"', '""', '"chair', 'chair" OR "lamp', "chair*", "^chair", "title:chair", "{title tags}: chair", "-chair",
    "NEAR(chair lamp, 2)", "chair AND NOT lamp", "(((((chair", "chair) --", "'; DROP TABLE documents; --", "%",
    "chair\0lamp",
    "\0", "🪑", "🪑 chair", "\u202echair\u202c", "كرسي chair", "כיסא", "cha\u200bir chair", "\ufeffchair", "a" * 1_024,
    "a " * 512, "chair-" * 170, "'" * 1_024, "\U0010ffff chair", "\t\n chair\r", "½ chair", "ﬁne chair",
    "chair\u0301\u0301\u0301",
    " ".join(chr(0x4E00 + number) for number in range(256)),
]  # fmt: skip


async def test_text_is_data_and_never_syntax(shard):
    async with shard() as running:
        await running.create()
        await running.store(
            [*images("chair", title="chair"), *images("lamp", title="lamp"), *images("box", title="box")]
        )
        for text in HOSTILE:
            try:
                found = products(await running.text(text))
            except grpc.aio.AioRpcError as error:
                refused = from_rpc_error(error)
                assert isinstance(refused, InvalidArgumentError), (text, refused)
                assert not any(char.isalnum() for char in text), text
                continue
            assert ("chair" in found) == ("chair" in text), text
            assert ("lamp" in found) == ("lamp" in text), text
            assert "box" not in found


async def test_what_breaks_a_limit_is_named(shard):
    async with shard() as running:
        await running.create()
        cases = [
            ({"text": ""}, "text", "text has no word in it: send at least one letter or digit"),
            ({"text": " \n-—🛋"}, "text", "text has no word in it: send at least one letter or digit"),
            ({"text": "ä" * 513}, "text", "text has 1026 bytes, at most 1024"),
            ({"k": 0}, "k", "k: 0, must be 1 to 1000"),
            ({"k": 1_001}, "k", "k: 1001, must be 1 to 1000"),
            ({"exclude_product_ids": ["x"] * 10_001}, "exclude_product_ids", "10001, must be 0 to 10000"),
            ({"exclude_product_ids": ["\n"]}, "exclude_product_ids", "control characters"),
            ({"filter": filter_pb2.Filter()}, "filter", "filter"),
            ({"collection": ""}, "collection", "collection is empty"),
        ]
        for fields, field, message in cases:
            error = await refusal(running.text(**{"text": "chair", **fields}))
            assert isinstance(error, InvalidArgumentError), fields
            assert message in error.message
            assert error.violations[0].field.startswith(field)
        assert isinstance(await refusal(running.text("chair", collection="none")), NotFoundError)


async def test_a_shard_without_text_index_says_so_and_has_no_file(shard):
    async with shard(text_index=False) as running:
        await running.create()
        await running.store(images("chair", title="chair"))
        error = await refusal(running.text("chair"))
        assert isinstance(error, UnimplementedError)
        assert "text_index is off" in error.message
        assert list(running.data.glob("collections/*/text")) == []
    async with shard() as running:
        assert products(await running.text("chair")) == ["chair"]


@milvus_only
async def test_milvus_has_no_text_index(shard):
    async with shard() as running:
        await running.create()
        assert isinstance(await refusal(running.text("chair")), UnimplementedError)
