"""`vitrine ingest` against the real services: everything accounted for, resumable, and clear when it cannot."""

import csv
import signal

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_what_is_stored_and_what_a_second_run_sends(shell, shop):
    file = shop / "products.csv"
    first = await shell.run("ingest", file, "--collection", "shop")
    assert (first.status, first.err) == (0, "")
    assert first.out.startswith("shop: 24 images stored")
    points = await shell.points("shop")
    assert set(points) == {(f"P{number:02}", f"P{number:02}_{view}") for number in range(12) for view in range(2)}
    point = points["P03", "P03_1"]
    assert point.image_uri == (shop / "img" / "P03_1.png").as_uri()
    assert point.attributes["price"].double_value == 30.5
    assert point.attributes["in_stock"].int64_value == 0
    assert point.attributes["title"].string_value == "Thing 3"

    again = await shell.run("ingest", file, "--collection", "shop")
    assert again.status == 0
    assert again.out.startswith("shop: 0 images stored, 24 there already")

    rewrite(file, "Thing 5,", "New thing,")
    (shop / "img" / "P07_0.png").write_bytes((shop / "img" / "P08_0.png").read_bytes())
    changed = await shell.run("ingest", file, "--collection", "shop")
    assert changed.out.startswith("shop: 3 images stored")
    assert "21 there already" in changed.out
    points = await shell.points("shop")
    assert points["P05", "P05_1"].attributes["title"].string_value == "New thing"
    assert points["P07", "P07_0"].content_hash == points["P08", "P08_0"].content_hash

    everything = await shell.run("ingest", file, "--collection", "shop", "--again")
    assert everything.out.startswith("shop: 24 images stored")

    await shell.drop("shop")
    emptied = await shell.run("ingest", file, "--collection", "shop")
    assert emptied.out.startswith("shop: 24 images stored")
    assert len(await shell.points("shop")) == 24


async def test_an_older_catalogue_does_not_overwrite_a_newer_one(shell, shop):
    file = shop / "products.csv"
    assert (await shell.run("ingest", file, "--collection", "shop", "--version", 2000)).status == 0
    rewrite(file, "Thing 5,", "Old thing,")
    older = await shell.run("ingest", file, "--collection", "shop", "--version", 1000)
    assert older.status == 0
    assert "2 of them older than what the index holds, which was kept" in older.out
    assert (await shell.points("shop"))["P05", "P05_0"].attributes["title"].string_value == "Thing 5"


async def test_bad_rows_are_listed_and_the_rest_is_stored(shell, shop):
    file = shop / "products.csv"
    (shop / "img" / "text.jpg").write_text("hello, this is text")
    (shop / "img" / "cut.png").write_bytes((shop / "img" / "P01_0.png").read_bytes()[:200])
    (shop / "img" / "empty.png").write_bytes(b"")
    with (shop / "img" / "huge.png").open("wb") as sink:
        sink.truncate(40 * 2**20)
    with file.open("a") as sink:
        sink.write("P01,again,Office,1,1,img/P01_0.png\n")
        sink.write(",no id,Office,1,1,img/P01_0.png\n")
        sink.write("Q1,text,Office,1,1,img/text.jpg\n")
        sink.write("Q2,one gone,Office,1,1,img/P02_0.png;img/gone.png\n")
        sink.write("Q3,cut,Office,1,1,img/cut.png\n")
        sink.write("Q4,empty,Office,1,1,img/empty.png\n")
        sink.write("Q5,huge,Office,1,1,img/huge.png\n")
        sink.write("Q6,no price,Office,ask,1,img/P02_0.png\n")
        sink.write("Q7,short\n")
    ran = await shell.run("ingest", file, "--collection", "shop", "--type", "price=double")
    assert ran.status == 1
    assert ran.out.startswith("shop: 25 images stored")
    listed = shop / "products.failed.csv"
    assert ran.err == f"9 failed; see {listed}\n"
    with listed.open(newline="") as source:
        failed = {int(row["row"]): row for row in csv.DictReader(source)}
    assert sorted(failed) == list(range(14, 23))
    assert [failed[row]["product_id"] for row in range(14, 23)] == [
        "P01",
        "",
        *(f"Q{number}" for number in range(1, 8)),
    ]
    assert "the same product_id as row 3" in failed[14]["reason"]
    assert (failed[15]["field"], failed[15]["reason"]) == ("product_id", "empty")
    assert "jpeg" in failed[16]["reason"].lower()
    assert failed[17]["image"] == "img/gone.png"
    assert "No such file" in failed[17]["reason"]
    assert failed[18]["image"] == "img/cut.png"
    assert "empty" in failed[19]["reason"]
    assert str(40 * 2**20) in failed[20]["reason"]
    assert (failed[21]["field"], failed[21]["reason"]) == ("price", "'ask' is not a finite number")
    assert "2 fields, the header has 6" in failed[22]["reason"]
    assert ("Q2", "P02_0") in await shell.points("shop")

    # Mended, the next run sends what was bad, and takes the list away.
    lines = file.read_text().splitlines()[:13]
    file.write_text("\n".join([*lines, "Q1,mended,Office,1,1,img/P02_1.png"]) + "\n")
    mended = await shell.run("ingest", file, "--collection", "shop")
    assert (mended.status, mended.err) == (0, "")
    assert mended.out.startswith("shop: 1 images stored")
    assert "24 there already" in mended.out
    assert not listed.exists()


# As a shell starts a job in the background: SIGINT is ignored.
IN_THE_BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")


@pytest.mark.parametrize(
    ("number", "launcher"), [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGTERM, IN_THE_BACKGROUND)]
)
async def test_an_interrupted_run_continues_where_it_stopped(shell, big_shop, number, launcher):
    command = ("ingest", big_shop / "products.csv", "--collection", "shop")
    process = await shell.start(*command, launcher=launcher)
    await shell.until_some_stored(process)
    interrupted = await shell.interrupt(process, number)
    assert interrupted.status == 130
    assert "the same command again continues from here" in interrupted.err
    before = len(await shell.points("shop"))
    assert 0 < before < 300

    rest = await shell.run(*command)
    assert rest.status == 0
    assert len(await shell.points("shop")) == 300
    there, stored = (int(rest.out.split(word)[0].split()[-1]) for word in (" there already", " images stored"))
    assert there + stored == 300
    # What the embedder had in work when it was interrupted may have become durable after the count.
    assert there >= before


@pytest.mark.parametrize("name", ["embedder", "indexer-1"])
async def test_a_service_that_dies_and_comes_back_costs_nothing(shell, big_shop, name):
    process = await shell.start("ingest", big_shop / "products.csv", "--collection", "shop")
    await shell.until_some_stored(process)
    await shell.stack.supervisor.kill(name)
    assert process.returncode is None
    await shell.stack.supervisor.restart(name)
    ran = await shell.finish(process)
    assert ran.status == 0, ran.err
    assert ran.out.startswith("shop: 300 images stored")
    assert len(await shell.points("shop")) == 300
    if name == "embedder":
        assert "trying again in" in ran.err


async def test_what_cannot_start_says_why_in_one_line(shell, shop):
    file = shop / "products.csv"
    (shop / "bad.csv").write_text("sku,images\nA,img/P01_0.png\n")
    (shop / "mine.failed.csv").write_text("somebody's own file\n")
    indexers = shell.stack.indexers
    assert (await shell.run("ingest", file, "--collection", "shop")).status == 0
    # A row of its own that fails, so that there is something to list where nothing can be written.
    (shop / "gone.csv").write_text("product_id,images\nA,img/gone.png\n")
    cases = [
        (("ingest", shop / "bad.csv", "-c", "shop"), "has no column 'product_id'; the columns are 'sku', 'images'"),
        (("ingest", shop / "nowhere.csv", "-c", "shop"), "No such file or directory"),
        (("ingest", file, "-c", "Not A Name"), "'Not A Name' must be 1 to 64 of [a-z0-9_-]"),
        (("ingest", file, "-c", "shop", "--type", "prise=double"), "no attribute column 'prise'"),
        (("ingest", file, "-c", "shop", "--type", "price=money"), "'price=money' is not COLUMN=TYPE"),
        (("ingest", file, "-c", "shop", "--failed", shop / "mine.failed.csv"), "is not a list of failed rows"),
        (("--embedder", "127.0.0.1:1", "ingest", file, "-c", "shop"), "cannot reach the embedder at 127.0.0.1:1"),
        (("--indexers", "127.0.0.1:1", "ingest", file, "-c", "shop"), "cannot reach shard 0 at 127.0.0.1:1"),
        (("--indexers", ",".join(reversed(indexers)), "ingest", file, "-c", "shop"), "in shard order"),
        (("--indexers", " , ", "ingest", file, "-c", "shop"), "name at least one shard"),
        (
            ("ingest", shop / "gone.csv", "-c", "shop", "--failed", shop / "no" / "f.csv"),
            "cannot write the failed rows",
        ),
    ]
    for (arguments, message), ran in zip(cases, await shell.run_each(*(each for each, _ in cases)), strict=True):
        assert ran.refused(message), (arguments, ran)
    assert (shop / "mine.failed.csv").read_text() == "somebody's own file\n"
    assert len(await shell.points("shop")) == 24
