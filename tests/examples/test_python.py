"""The examples for Python say what they promise, on a real stack."""

import asyncio

import pytest

from tests.examples.conftest import EXAMPLES, PRODUCTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST = "S0001"


async def run(shop, example, *arguments):
    return await asyncio.to_thread(shop.python, example, *arguments)


async def test_search_by_photo(shop):
    *products, coverage = await run(shop, "search_by_photo", shop.stack.gateway, "shop", shop.photo)
    assert len(products) == 5
    assert [line.split()[0] for line in products] == ["1", "2", "3", "4", "5"]
    scores = [float(line.split()[2]) for line in products]
    assert scores == sorted(scores, reverse=True)
    assert coverage == "2 of 2 shards answered"


async def test_photo_and_words(shop):
    lines = await run(shop, "photo_and_words", shop.stack.gateway, "shop", shop.photo, "armchair")
    assert lines[0] == f"1 {FIRST} Armchair"


async def test_similar(shop):
    lines = await run(shop, "similar", shop.stack.gateway, "shop", FIRST)
    categories = [line.split()[2] for line in lines]
    assert categories
    assert max(map(categories.count, categories)) <= 2
    assert FIRST not in "".join(lines)


async def test_recognise(shop):
    lines = await run(shop, "recognise", shop.stack.gateway, "shop", shop.photo)
    assert "confidence" in lines[0]
    assert any("category" in line for line in lines[1:])


async def test_feedback(shop):
    lines = await run(shop, "feedback", shop.stack.gateway, "shop", "armchair")
    assert f"text [('{FIRST}', 'click', 1)]" in lines


async def test_pages(shop):
    lines = await run(shop, "pages", shop.stack.gateway, "shop", FIRST)
    found = " ".join(lines).split()
    assert len(found) == len(set(found)) == PRODUCTS - 1
    assert [len(line.split()) for line in lines] == [10, 1]


async def test_errors(shop, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    assert (await run(shop, "errors", shop.stack.gateway, "nowhere", shop.photo))[0].startswith("NOT_FOUND ")
    assert "not worth another try" in (await run(shop, "errors", shop.stack.gateway, "shop", damaged))[0]


async def test_every_example_is_run_here():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in (EXAMPLES / "python").glob("*.py")} - {"ingest"} <= tested
