"""`vitrine search`, `similar` and `status` against the real services."""

import asyncio
import base64
import json
import os
import sys

import pytest
import pytest_asyncio
from PIL import Image

from services.local.stack import ROOT
from vitrine.sheet import sheet_size

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def filled(shell, shop):
    """The shell, with the small catalogue ingested as `shop`."""
    ran = await shell.run("ingest", shop / "products.csv", "--collection", "shop")
    assert ran.status == 0, ran.err
    return shell


async def test_searching_by_photo(filled, shop, tmp_path):
    photo = shop / "img" / "P04_1.png"
    ran = await filled.run("search", photo, "-c", "shop", "-k", 5, "--json")
    assert (ran.status, ran.err) == (0, "")
    answer = json.loads(ran.out)
    assert [each["rank"] for each in answer["products"]] == [1, 2, 3, 4, 5]
    first = answer["products"][0]
    assert (first["product_id"], first["image_id"]) == ("P04", "P04_1")
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert first["image_uri"] == photo.as_uri()
    assert first["attributes"] == {"title": "Thing 4", "category": "Kitchen", "price": 40.5, "in_stock": 1}
    assert (answer["coverage"]["shards_answered"], answer["coverage"]["points"]) == (2, 24)
    assert answer["degraded"] == []
    assert {"embed", "index", "merge"} <= set(answer["timings"])

    narrowed = await filled.run("search", photo, "--json", "--filter", 'category = "Office" and price < 60')
    found = [each["attributes"] for each in json.loads(narrowed.out)["products"]]
    assert len(found) == 3
    assert all(each["category"] == "Office" and each["price"] < 60 for each in found)

    # Another part of the picture is another query.
    boxed = await filled.run("search", photo, "--json", "--box", "0.5,0.5,0.2,0.2")
    assert json.loads(boxed.out)["products"][0]["score"] < 0.999

    sheet = tmp_path / "sheet.png"
    table = await filled.run("search", photo, "-k", 3, "--sheet", sheet)
    assert table.status == 0
    assert "Thing 4" in table.out
    assert "P04" in table.out
    assert "2 of 2 shards · 24 images" in table.out
    with Image.open(sheet) as drawn:
        assert drawn.size == sheet_size(3)

    nothing = await filled.run("search", photo, "--filter", "price > 1000")
    assert nothing.status == 0
    assert "no product matches" in nothing.out


async def test_searching_by_several_things_at_once(filled, shop, tmp_path):
    photos = [shop / "img" / "P04_0.png", shop / "img" / "P05_0.png"]
    sheet = tmp_path / "sheet.png"
    both, cropped, words, like, told = await filled.run_each(
        ("search", *photos, "-k", 12, "--json"),
        ("search", photos[0], "--auto-crop", "--json"),
        ("search", "--text", "thing 7", "-k", 3, "--json", "--sheet", sheet),
        ("search", "--like", "P01", "--like", "P02", "--unlike", "P03", "-k", 12, "--json"),
        (
            *("search", photos[0], "--text", "thing", "--in-stock-first", "--diversity", "0.3", "--cap", "category=2"),
            *("--facet", "category", "--facet", "in_stock", "--explain", "-k", 4),
        ),
    )
    assert len(json.loads(both.out)["products"]) == 12
    assert json.loads(cropped.out)["products"][0]["product_id"] == "P04"
    answer = json.loads(words.out)
    assert answer["products"][0]["product_id"] == "P07"
    assert base64.b64decode(answer["next_page_token"])
    with Image.open(sheet) as drawn:
        assert drawn.size == sheet_size(3)
    assert {each["product_id"] for each in json.loads(like.out)["products"]} == {
        f"P{number:02}" for number in range(12) if number not in (1, 2, 3)
    }

    assert told.status == 0, told.err
    for told_of in ("stage", "fusion", "in stock", "rank 1", "1 of 2 with category Kitchen", "diversity"):
        assert told_of in told.out, told_of
    counts = [line.split() for line in told.out.splitlines()]
    assert ["Kitchen", "6"] in counts
    assert ["Office", "6"] in counts
    assert ["1", "8"] in counts
    assert "· cap " in " ".join(told.out.split())


async def test_searching_by_stored_product(filled, shop, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    ran = await filled.run("similar", "P04", "-k", 20, "--json", "--sheet", sheet)
    found = [each["product_id"] for each in json.loads(ran.out)["products"]]
    assert sorted(found) == sorted(f"P{number:02}" for number in range(12) if number != 4)
    with Image.open(sheet) as drawn:
        assert drawn.size == sheet_size(11)
    views = [("similar", "P04", "--image-id", f"P04_{view}", "--json") for view in range(2)]
    first, second = [json.loads(each.out)["products"] for each in await filled.run_each(*views)]
    assert [each["score"] for each in first] != [each["score"] for each in second]


async def test_what_is_wrong_is_said_in_one_line(filled, shop, tmp_path):
    photo = shop / "img" / "P04_1.png"
    (shop / "text.jpg").write_text("hello, this is text")
    cases = [
        (("search", shop / "gone.jpg"), "No such file or directory"),
        (("search", shop), "Is a directory"),
        (("search", shop / "text.jpg"), "jpeg, png, webp"),
        (("search", photo, "-c", "nowhere"), "nowhere"),
        (("search", photo, "--filter", "price <"), "expected a number"),
        (("search", photo, "--filter", 'colour = "red" and'), "filter"),
        (("search", photo, "--box", "0,0,2,1"), "x + width is 2"),
        (("search", photo, "--box", "0,0,1"), "is not four numbers"),
        (("search", photo, "-k", "0"), "-k"),
        (("search",), "nothing to search by"),
        (("search", photo, photo, "--box", "0,0,1,1"), "box needs one image"),
        (("search", "--text", "x", "--auto-crop"), "auto_crop needs an image"),
        (("search", photo, "--cap", "brand"), "is not NAME=N"),
        (("search", photo, "--diversity", "2"), "--diversity"),
        (("search", "--like", "P99"), "no product 'P99'"),
        (("search", "--unlike", "P01"), "no part with a positive weight"),
        (("search", photo, "--sheet", "sheet.txt"), "does not end with a picture format"),
        (("similar", "P99"), "no product 'P99' in collection 'shop'"),
        (("similar", "P04", "--image-id", "x"), "image 'x'"),
        (("--gateway", "127.0.0.1:1", "search", photo), "cannot reach the gateway at 127.0.0.1:1"),
        (("--gateway", "127.0.0.1:1", "status"), "`make run` starts a local Vitrine"),
    ]
    for (arguments, message), ran in zip(cases, await filled.run_each(*(each for each, _ in cases)), strict=True):
        assert ran.refused(message), (arguments, ran)


async def test_an_answer_is_not_lost_where_its_sheet_cannot_be_written(filled, shop, tmp_path):
    sheet = tmp_path / "no" / "sheet.png"
    ran = await filled.run("search", shop / "img" / "P04_1.png", "--json", "--sheet", sheet)
    assert (ran.status, ran.err) == (2, f"error: No such file or directory: {sheet}\n")
    assert json.loads(ran.out)["products"][0]["product_id"] == "P04"


async def test_a_column_declared_as_a_list_is_filtered_by_its_elements(shell, shop):
    lines = [
        "product_id,colours,images",
        "A,red;blue,img/P00_0.png",
        "B,blue,img/P01_0.png",
        "C,redder,img/P02_0.png",
        "D,,img/P03_0.png",
    ]
    (shop / "colours.csv").write_text("\n".join(lines) + "\n")
    ran = await shell.run("ingest", shop / "colours.csv", "-c", "shop", "--type", "colours=list")
    assert ran.status == 0, ran.err
    photo = shop / "img" / "P00_0.png"
    red, blue = await shell.run_each(
        *(("search", photo, "--json", "--filter", f'colours = "{colour}"') for colour in ("red", "blue"))
    )
    found = json.loads(red.out)["products"]
    assert [(each["product_id"], each["attributes"]) for each in found] == [("A", {"colours": ["red", "blue"]})]
    assert {each["product_id"] for each in json.loads(blue.out)["products"]} == {"A", "B"}


async def test_status_and_what_a_dead_service_looks_like(filled, shop):
    photo = shop / "img" / "P04_1.png"
    ran = await filled.run("status", "--json")
    assert ran.status == 0
    status = json.loads(ran.out)
    assert [each["component"] for each in status["components"]] == ["embedder", "shard 0", "shard 1"]
    assert [(each["name"], each["products"], each["points"]) for each in status["collections"]] == [("shop", 12, 24)]
    table = await filled.run("status", env={"VITRINE_CLI_GATEWAY": "127.0.0.1:1"})  # the option wins
    assert table.status == 0
    assert "shard 1" in table.out
    assert "shop" in table.out

    supervisor = filled.stack.supervisor
    await supervisor.kill("indexer-1")
    partial = await filled.run("search", photo)
    assert partial.status == 0
    assert "incomplete: a shard failed or could not be reached" in partial.err
    assert "1 of 2 shards" in partial.out
    sick = await filled.run("status")
    assert sick.status == 1
    assert "down" in sick.out

    await supervisor.kill("embedder")
    ran = await filled.run("search", photo, "-c", "shop")
    assert ran.status == 2
    assert f"embedder at {filled.stack.embedder} is down" in ran.err


async def test_the_collection_may_be_left_out_only_where_there_is_one(shell, shop):
    photo = shop / "img" / "P04_1.png"
    none = await shell.run("search", photo)
    assert none.status == 2
    assert "there is no collection yet" in none.err
    both = [("ingest", shop / "products.csv", "-c", name, "--failed", shop / name) for name in ("one", "two")]
    assert [ran.status for ran in await shell.run_each(*both)] == [0, 0]
    several = await shell.run("search", photo)
    assert several.status == 2
    assert "choose one with --collection: one, two" in several.err


async def test_addresses_come_from_the_environment(stack):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients"), "VITRINE_CLI_GATEWAY": stack.gateway}
    command = (sys.executable, "-m", "vitrine.cli", "status", "--json")
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["components"][0]["address"] == stack.embedder
