"""`vitrine attributes`: price and stock without pictures."""

import csv
import os

import pytest
import pytest_asyncio

from tests.cli.index import Index, things
from vitrine.attributes import map_from_proto
from vitrine.v1 import indexer_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

POINTS = 6_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shards(tmp_path_factory):
    async with Index(tmp_path_factory.mktemp("index"), 2) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def index(shards):
    """Ten products of two images each, stored with versions 1000 and up."""
    await shards.create()
    await shards.store(things(20))
    yield shards
    for shard in shards.shards:
        await shard.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))


def changes(tmp_path, *rows, name="changes.csv"):
    file = tmp_path / name
    file.write_text("\n".join(rows) + "\n")
    return file


async def attributes(index):
    return {key: map_from_proto(point.attributes) for key, point in (await index.points()).items()}


async def test_values_change_and_the_rest_stays(index, tmp_path):
    before = await index.points()
    file = changes(tmp_path, "product_id,price,stock,images", "P00003,99.5,4,a.jpg", "P00004,,0,b.jpg;c.jpg")
    ran = await index.run("attributes", "things", file)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "things: 2 rows changed 4 images\n"
    after = await index.points()
    told = await attributes(index)
    for image in ("I0", "I1"):
        assert (told["P00003", image]["price"], told["P00003", image]["stock"]) == (99.5, 4)
        assert told["P00003", image]["title"].startswith("Thing")
        assert told["P00004", image]["price"] == before["P00004", image].attributes["price"].double_value
        assert told["P00004", image]["stock"] == 0
        assert after["P00003", image].vector == before["P00003", image].vector
    changed = {("P00003", "I0"), ("P00003", "I1"), ("P00004", "I0"), ("P00004", "I1")}
    assert all(after[key].attributes == before[key].attributes for key in before.keys() - changed)
    assert not (tmp_path / "changes.failed.csv").exists()

    again = await index.run("attributes", "things", file)
    assert again.status == 0
    assert await attributes(index) == told


async def test_one_image_of_a_product(index, tmp_path):
    file = changes(tmp_path, "product_id,image_id,stock", "P00001,,5", "P00001,I1,6")
    assert (await index.run("attributes", "things", file)).status == 0
    told = await attributes(index)
    assert (told["P00001", "I0"]["stock"], told["P00001", "I1"]["stock"]) == (5, 6)


async def test_empty_fields_remove_where_asked(index, tmp_path):
    file = changes(tmp_path, "product_id,title,sale", "P00002,,true")
    assert (await index.run("attributes", "things", file, "--unset-empty")).status == 0
    told = await attributes(index)
    assert "title" not in told["P00002", "I0"]
    assert told["P00002", "I0"]["sale"] is True
    assert "title" in told["P00003", "I0"]


async def test_newer_values_are_kept(index, tmp_path):
    new = changes(tmp_path, "product_id,price", "P00005,1.5", name="new.csv")
    old = changes(tmp_path, "product_id,price", "P00005,2.5", "P00006,", name="old.csv")
    os.utime(old, (1_000_000, 1_000_000))
    os.utime(new, (2_000_000, 2_000_000))
    assert (await index.run("attributes", "things", new)).status == 0
    ran = await index.run("attributes", "things", old)
    assert (ran.status, ran.out) == (0, "things: 0 rows changed 0 images, 2 had nothing newer to say\n")
    assert (await attributes(index))["P00005", "I0"]["price"] == 1.5
    forced = await index.run("attributes", "things", old, "--version", 2_000_000_001)
    assert forced.status == 0
    assert (await attributes(index))["P00005", "I0"]["price"] == 2.5


async def test_bad_rows_are_listed_and_the_rest_is_done(index, tmp_path):
    file = changes(
        tmp_path,
        "product_id,image_id,price,title",
        "P00000,,1.5,",
        "GONE,,1.5,",
        "P00001,I9,1.5,",
        "P00002,,ask,",
        ",,1.5,",
        "P00000,,2.5,",
        "P00003,I0",
        f"P00004,,1.5,{'x' * 9000}",
        "P00005,,1.5,",
    )
    ran = await index.run("attributes", "things", file, "--type", "price=double")
    assert ran.status == 1
    assert ran.out == "things: 2 rows changed 4 images\n"
    assert f"7 failed; see {tmp_path / 'changes.failed.csv'}" in ran.err
    with (tmp_path / "changes.failed.csv").open(newline="") as source:
        failed = {int(row["row"]): row for row in csv.DictReader(source)}
    assert set(failed) == {3, 4, 5, 6, 7, 8, 9}
    assert failed[3]["product_id"] == "GONE"
    assert (failed[4]["product_id"], failed[4]["image"]) == ("P00001", "I9")
    assert (failed[5]["field"], failed[5]["reason"]) == ("price", "'ask' is not a finite number")
    assert "the same key as row 2" in failed[7]["reason"]
    assert "attributes" in failed[9]["reason"] or "title" in failed[9]["reason"]
    told = await attributes(index)
    assert told["P00000", "I0"]["price"] == told["P00005", "I1"]["price"] == 1.5


async def test_refusals(index, tmp_path):
    file = changes(tmp_path, "product_id,price", "P00000,1.5")
    assert (await index.run("attributes", "none", file)).refused("no collection 'none'")
    nothing = changes(tmp_path, "product_id,image_id", "P00000,", name="nothing.csv")
    assert (await index.run("attributes", "things", nothing)).refused("has no attribute column")
    assert (await index.run("attributes", "things", file, "--type", "prize=double")).refused("no attribute column")


async def test_more_rows_than_a_request_takes(index, tmp_path):
    await index.store(things(POINTS, images=1, version=10_000))
    rows = [f"P{number:05},{number}" for number in range(POINTS)]
    file = changes(tmp_path, "product_id,stock", *rows)
    ran = await index.run("attributes", "things", file)
    assert ran.status == 0
    told = await attributes(index)
    assert all(told[key]["stock"] == int(key[0][1:]) for key in told)
    assert len({key[0] for key in told}) == POINTS
