"""`vitrine evaluate` against the real services: right figures, nothing dropped silently, nothing left behind."""

import json
import re
import signal

import pytest
from PIL import Image

from tests.cli.conftest import picture
from tests.watching import scrape

KEYS = ["r@1", "r@1_ci", "r@5", "r@5_ci", "r@10", "r@10_ci", "mrr", "mrr_ci", "n", "unanswered"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


def write_queries(folder, *rows):
    file = folder / "queries.csv"
    file.write_text("\n".join(["image,product_id,category,kind", *rows]) + "\n")
    return ("--catalogue", folder / "products.csv", "--queries", file)


async def test_figures_per_kind(shell, shop):
    right = [f"img/P{number:02}_1.png,P{number:02},x,right" for number in range(12)]
    swapped = [f"img/P{number:02}_1.png,P{(number + 1) % 12:02},x,swapped" for number in range(12)]
    ran = await shell.run("evaluate", *write_queries(shop, *right, *swapped), "--json")
    assert (ran.status, ran.err) == (0, "")
    report = json.loads(ran.out.splitlines()[-1])
    assert list(report) == ["right", "swapped"]
    assert list(report["right"]) == KEYS
    assert (report["right"]["r@1"], report["right"]["mrr"], report["right"]["n"]) == (1.0, 1.0, 12)
    assert report["right"]["r@1_ci"] == [0.7575, 1.0]
    assert report["swapped"]["r@1"] == 0.0
    # Every product is ranked, so each wrong one is found somewhere between 2 and 12.
    assert 1 / 12 <= report["swapped"]["mrr"] <= 1 / 2
    assert await shell.collections() == set()

    table = await shell.run("evaluate", *write_queries(shop, *right))
    assert table.status == 0
    assert "R@1" in table.out
    assert "1.000 [0.757 1.000]" in table.out or "1.000 [0.758 1.000]" in table.out


async def test_what_fails_is_counted_and_said(shell, shop):
    (shop / "text.jpg").write_text("hello, this is text")
    with (shop / "products.csv").open("a") as sink:
        sink.write("Q1,gone,Office,1,1,img/gone.png\n")
    rows = [
        "img/P01_0.png,P01,x,view",
        "img/P02_0.png,P02,x,view",
        "img/gone.png,P01,x,view",
        "text.jpg,P01,x,view",
        "img/P03_0.png,P99,x,view",
    ]
    ran = await shell.run("evaluate", *write_queries(shop, *rows), "--json")
    assert ran.status == 1
    view = json.loads(ran.out)["view"]
    assert (view["r@1"], view["n"], view["unanswered"]) == (0.4, 5, 2)
    assert "1 catalogue images are missing from the collection" in ran.err
    assert "2 queries were not answered and count as not found" in ran.err
    assert "row 4: No such file or directory" in ran.err
    assert "row 5: " in ran.err
    assert "1 queries show a product that is not in the catalogue" in ran.err
    assert await shell.collections() == set()
    assert not (shop / "products.failed.csv").exists()


def marked(seed):
    """Black with a striking square off its middle."""
    canvas = Image.new("RGB", (160, 160))
    canvas.paste(picture(seed, side=64), (80, 24))
    return canvas


async def subjects_asked_for(stack):
    page = await scrape(stack.ports.metrics[int(stack.embedder.rpartition(":")[2])])
    return sum(map(float, re.findall(r"^vitrine_embedder_subjects_total\{.*\} (\S+)$", page, re.MULTILINE)))


async def test_auto_crop_searches_by_the_subject_of_each_photo(shell, shop):
    rows = []
    for number in range(4):
        marked(number).save(shop / f"marked{number}.png")
        rows.append(f"marked{number}.png,P{number:02},x,marked")
    for options, searched_by_subject in (((), 0), (("--auto-crop",), 4)):
        before = await subjects_asked_for(shell.stack)
        ran = await shell.run("evaluate", *write_queries(shop, *rows), *options, "--json")
        assert (ran.status, ran.err) == (0, "")
        assert json.loads(ran.out.splitlines()[-1])["marked"]["n"] == 4
        assert await subjects_asked_for(shell.stack) - before == searched_by_subject


async def test_keep_keeps(shell, shop):
    ran = await shell.run("evaluate", *write_queries(shop, "img/P01_0.png,P01,x,view"), "--keep")
    assert ran.status == 0
    (kept,) = await shell.collections()
    assert f"kept as collection {kept}" in ran.err
    assert len(await shell.points(kept)) == 24


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_evaluation_leaves_nothing_behind(shell, big_shop, number):
    process = await shell.start("evaluate", *write_queries(big_shop, "1.jpg,P001,x,view"))
    await shell.until_some_stored(process)
    interrupted = await shell.interrupt(process, number)
    assert interrupted.status == 130
    assert await shell.collections() == set()


async def test_a_shard_that_cannot_be_told_is_named(shell, big_shop):
    process = await shell.start("evaluate", *write_queries(big_shop, "1.jpg,P001,x,view"))
    await shell.until_some_stored(process)
    await shell.stack.supervisor.kill("indexer-1")
    ran = await shell.interrupt(process)
    assert ran.status == 2
    assert "could not be dropped" in ran.err
    assert f"shard 1 at {shell.stack.indexers[1]}" in ran.err


async def test_a_bad_query_set_is_refused_before_anything_is_ingested(shell, shop):
    ran = await shell.run("evaluate", *write_queries(shop, "img/P01_0.png,,x,view"))
    assert ran.status == 2
    assert "row 2: product_id is empty" in ran.err
    assert await shell.collections() == set()
