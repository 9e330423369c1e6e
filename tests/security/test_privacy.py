"""The contract of docs/privacy.md: of a photo somebody searches by, nothing is written and nothing is logged.

Every file that the stack could have written after the searches of `searched.py` is read.
"""

import asyncio
import base64
import hashlib
import sqlite3
import urllib.request
from contextlib import closing

import numpy as np
import pytest
import redis

from services.local.stack import ROOT
from tests.conftest import missing
from tests.security.marked import WORDS, traces_of_bytes, traces_of_text
from tests.security.searched import disk_writes, files, open_files, processes, written
from vitrine.v1 import embedder_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_no_file_changes_or_appears(searched):
    await asyncio.sleep(1.5)  # what would be written a moment later
    assert files(searched.folder) == searched.before


async def test_the_record_of_answers_holds_what_was_shown_and_nothing_of_the_photo(searched):
    def read():
        with closing(sqlite3.connect(searched.stack.data / "gateway" / "feedback.sqlite")) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(queries)")]
            return columns, database.execute("SELECT * FROM queries").fetchall()

    columns, rows = await asyncio.to_thread(read)
    assert columns == ["query_id", "collection", "kind", "time_ms", "product_ids", "user_hash"]
    assert len(rows) >= len(searched.photos)
    for row in rows:
        _, collection, kind, _, products, user = row
        assert (collection, kind, user) == ("shop", "image", "")
        assert searched.found_in(products.encode()) == []


async def test_the_kernel_counts_no_photo_written_to_any_file(searched):
    own = written("self")
    (searched.folder / "control").write_bytes(searched.photos[0])
    counted = written("self") - own
    (searched.folder / "control").unlink()
    if counted < len(searched.photos[0]):
        pytest.skip("this file system does not count what is written to it")
    least = min(map(len, searched.photos))
    for pid, now in disk_writes(searched.stack).items():
        assert now - searched.written.get(pid, 0) < least, pid


async def test_no_open_file_holds_any_of_it(searched):
    looked_at = 0
    for pid in processes(searched.stack):
        for target, content in open_files(pid):
            assert searched.found_in(content) == [], target
            looked_at += 1
    assert looked_at


async def test_no_log_says_anything_of_it(searched):
    logs = {name: each.log.read_bytes() for name, each in searched.stack.supervisor.processes.items()}
    assert len(logs) == 4
    for name, log in logs.items():
        assert b'"event": "serving"' in log, name
        assert searched.found_in(log) == [], name


async def test_metrics_say_nothing_of_it(searched):
    ports = searched.stack.ports
    for port in ports.metrics.values():
        page = await asyncio.to_thread(lambda p=port: urllib.request.urlopen(f"http://127.0.0.1:{p}/metrics").read())
        assert searched.found_in(page) == []


async def test_nothing_of_it_is_in_any_file_of_the_stack(searched):
    for path in searched.folder.rglob("*"):
        if path.is_file():
            assert searched.found_in(path.read_bytes()) == [], path
    for path in ROOT.iterdir():
        if path.is_file():
            assert WORDS.encode() not in path.read_bytes(), path


async def test_the_shared_cache_holds_vectors_by_keys_that_name_no_photo_and_ends_them(searched):
    """It is off by default. Where it is on, the vectors of query photos are in it, and docs/privacy.md says so."""
    if searched.cache is None:
        missing("redis-server")
    with redis.Redis(port=searched.cache.port) as client:
        kept = {key: client.get(key) for key in client.scan_iter() if client.type(key) == b"string"}
        assert len(kept) > len(searched.photos)
        assert all(client.ttl(key) > 0 for key in client.scan_iter())
    vector = np.asarray(searched.values, np.float32).tobytes()
    assert any(vector in value for value in kept.values())
    images = set().union(*map(traces_of_bytes, searched.photos)) | traces_of_text(WORDS)
    hashes = {hashlib.sha256(each) for each in searched.photos}
    images |= {each.digest() for each in hashes} | {each.hexdigest().encode() for each in hashes}
    for key, value in kept.items():
        assert not [trace for trace in images if trace in key or trace in value]


async def test_the_traces_would_be_found(searched):
    """What the other tests look for is what a careless line would leave."""
    image, values = searched.photos[0], searched.values
    for careless in (
        image,
        repr(image).encode(),
        image.hex().encode(),
        base64.b64encode(image),
        repr(list(map(float, values))).encode(),
        str(embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=image)])).encode(),
        f"{WORDS}.jpg is no image".encode(),
        hashlib.sha256(image).hexdigest().encode(),
        np.asarray(values, np.float32).tobytes(),
    ):
        assert searched.found_in(careless)
