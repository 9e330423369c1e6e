"""`vitrine export`: every point, once, also after interruptions."""

import asyncio
import base64
import json
import os
import signal

import numpy as np
import pytest
import pytest_asyncio

from tests.cli.index import Index, things
from tests.indexer.shard import FINGERPRINT
from vitrine import attributes, vectors
from vitrine.sharding import shard_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 6_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(tmp_path_factory):
    async with Index(tmp_path_factory.mktemp("index"), 2) as running:
        await running.create("few")
        await running.store(things(30), "few")
        await running.create("many")
        await running.store(things(MANY), "many")
        yield running


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def keys(file):
    return [(each["product_id"], each["image_id"]) for each in lines(file)]


async def test_every_field_of_every_point(index, tmp_path):
    file = tmp_path / "few.jsonl"
    ran = await index.run("export", "few", file, "--vectors")
    assert (ran.status, ran.err, ran.out) == (0, "", f"{file}: 30 images of few\n")
    stored = await index.points("few")
    assert len(lines(file)) == len(stored) == 30
    for each in lines(file):
        point = stored[each["product_id"], each["image_id"]]
        assert each["version"] == point.version
        assert bytes.fromhex(each["content_hash"]) == point.content_hash
        assert each["image_uri"] == point.image_uri
        # As messages: to Python 1 equals 1.0, to a filter's author it does not.
        assert attributes.map_to_proto(each["attributes"]) == point.attributes
        assert (each["dtype"], each["dim"], each["fingerprint"]) == ("float32", 16, FINGERPRINT)
        np.testing.assert_array_equal(
            np.frombuffer(base64.b64decode(each["vector"]), "<f4"),
            vectors.from_proto(point.vector, dim=16, fingerprint=FINGERPRINT),
        )
    assert keys(file) == sorted(stored, key=lambda key: (shard_of(key[0], 2), key))
    assert list(tmp_path.iterdir()) == [file]


async def test_without_vectors_and_filtered(index, tmp_path):
    file = tmp_path / "sale.jsonl"
    assert (await index.run("export", "few", file, "--filter", "sale = true and price < 2")).status == 0
    found = lines(file)
    assert sorted(each["attributes"]["price"] for each in found) == [0.0, 0.5, 1.0, 1.5]
    assert all("vector" not in each and "fingerprint" not in each for each in found)


async def test_refusals_leave_nothing(index, tmp_path):
    taken = tmp_path / "taken.jsonl"
    taken.write_text("mine")
    assert (await index.run("export", "few", taken)).refused(f"{taken} exists")
    assert (await index.run("export", "none", tmp_path / "none.jsonl")).refused("no collection 'none'")
    assert (await index.run("export", "few", tmp_path / "bad.jsonl", "--filter", "price <")).status == 2
    assert taken.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [taken]


async def interrupted(index, file):
    """Starts an export and interrupts it while the second shard, which comes last, stands still."""
    process = await index.shell.start("export", "many", file)
    part = file.with_name(file.name + ".part")
    # By then both shards have said what they hold, and the first is being read.
    while not part.exists() or part.stat().st_size == 0:
        assert process.returncode is None
        await asyncio.sleep(0.002)
    second = index.shards[1].pid
    os.kill(second, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)  # the signal is handled while nothing more can come
    finally:
        os.kill(second, signal.SIGCONT)
    ran = await index.shell.finish(process)
    assert ran.status == 130
    assert f"continues {part}" in ran.err
    return part


async def test_an_interrupted_export_continues(index, tmp_path):
    file = tmp_path / "many.jsonl"
    part = await interrupted(index, file)
    assert not file.exists()
    state = json.loads(part.with_name(part.name + ".progress").read_bytes())["state"]
    assert 0 < state["bytes"] <= part.stat().st_size
    with part.open("r+b") as sink:
        # What has been written stays as it is, so that its first byte tells that it was not written again.
        sink.write(b" ")
        sink.seek(0, os.SEEK_END)
        sink.write(b'{"product_id": "torn')

    other = await index.run("export", "many", file, "--vectors")
    assert other.refused("is the progress of another job")
    ran = await index.run("export", "many", file)
    assert (ran.status, ran.out) == (0, f"{file}: {MANY} images of many\n")
    content = file.read_bytes()
    assert content[:1] == b" "
    file.write_bytes(b"{" + content[1:])
    assert len(keys(file)) == MANY
    assert set(keys(file)) == set(await index.points("many"))
    assert list(tmp_path.iterdir()) == [file]


async def test_an_export_whose_file_was_removed_starts_afresh(index, tmp_path):
    file = tmp_path / "many.jsonl"
    (await interrupted(index, file)).unlink()
    assert (await index.run("export", "many", file)).status == 0
    assert len(keys(file)) == MANY == len(set(keys(file)))
