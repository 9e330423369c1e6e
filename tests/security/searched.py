"""A stack as it runs by default, logging all it can, that was searched by marked photos in every way there is."""

import asyncio
import contextlib
import hashlib
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from services.local.stack import Stack
from tests.embedder.cache.redis_server import RedisServer
from tests.end_to_end.test_whole_path import vitrine
from tests.security.marked import WORDS, numbers_of_vector, traces_of_bytes, traces_of_text
from vitrine import AsyncVitrine, VitrineError, vectors
from vitrine.channels import open_channel
from vitrine.errors import InvalidArgumentError
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc

COLLECTION = "shop"


@dataclass
class Searched:
    """What was there before the searches, what was searched by, and what of it could be found again."""

    stack: Stack
    folder: Path
    cache: RedisServer | None
    before: dict
    written: dict
    photos: list
    values: np.ndarray

    def __post_init__(self):
        raw = np.asarray(self.values, np.float32).tobytes()
        self.traces = traces_of_text(WORDS) | traces_of_bytes(raw, 12)
        for each in self.photos:
            self.traces |= traces_of_bytes(each) | traces_of_text(hashlib.sha256(each).hexdigest())
        self.numbers = numbers_of_vector(self.values)

    def found_in(self, content):
        """What of photos and vector is in a file; nothing is what it should be."""
        numbers = [number for number in self.numbers if number in content]
        return [trace for trace in self.traces if trace in content] + (numbers if len(numbers) > 2 else [])


async def ingest(stack, file):
    status, _, err = await vitrine(stack, "ingest", file, "--collection", COLLECTION)
    assert status == 0, err


async def search_every_way(stack, photos):
    """Good searches, bad ones, and some that break off: those are where things get logged."""
    async with AsyncVitrine(stack.gateway) as client:
        for each in photos:
            await client.search(COLLECTION, image=each, k=3, top_tags=3, timeout=60)
        for wrong in (photos[0][: len(photos[0]) // 2], photos[0][:2_000], b"\xff\xd8" + photos[0][700:]):
            with pytest.raises(InvalidArgumentError):
                await client.search(COLLECTION, image=wrong, timeout=60)
        with pytest.raises(VitrineError):
            await client.search("no-such-collection", image=photos[0], timeout=60)
        with pytest.raises(VitrineError):
            await client.search(COLLECTION, image=photos[1], timeout=0.001)
        gone = asyncio.ensure_future(client.search(COLLECTION, image=photos[2], timeout=60))
        await asyncio.sleep(0.01)
        gone.cancel()
    for field, content in (("image", photos[0]), ("image", photos[0][:3_000]), ("unknown", photos[0])):
        await asyncio.to_thread(upload, stack, field, content)
    async with open_channel(stack.embedder) as channel:
        call = embedder_pb2_grpc.EmbedderStub(channel).EmbedStream()
        await call.write(embedder_pb2.EmbedStreamRequest(image=embedder_pb2.ImageInput(data=photos[3])))
        await call.read()
        call.cancel()


def upload(stack, field, content):
    """Sends a form as a browser does, with a file name that tells something; what is answered does not matter."""
    head = f'--frontier\r\nContent-Disposition: form-data; name="{field}"; filename="{WORDS}.jpg"\r\n\r\n'.encode()
    fields = f'--frontier\r\nContent-Disposition: form-data; name="collection"\r\n\r\n{COLLECTION}\r\n'.encode()
    request = urllib.request.Request(
        f"{stack.page}/v1/search",
        fields + head + content + b"\r\n--frontier--\r\n",
        {"Content-Type": "multipart/form-data; boundary=frontier"},
    )
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


async def vector_of(stack, image):
    async with open_channel(stack.embedder) as channel:
        request = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=image)])
        answer = await embedder_pb2_grpc.EmbedderStub(channel).Embed(request, timeout=60)
    found = answer.results[0].vector
    return vectors.from_proto(found, dim=found.dim, fingerprint=found.fingerprint)


def files(folder):
    """Every file, by what is in it. Logs and the record of answers are looked at by themselves."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".log" and not path.name.endswith("-shm")  # no data, in SQLite's own words
        if not path.name.startswith("feedback.sqlite")
    }


async def until_quiet(folder):
    """Waits until the ingestion's last work on the disk is done."""
    seen = None
    while seen != (seen := files(folder)):
        await asyncio.sleep(1)


def processes(stack):
    """The processes of the services, and theirs."""
    own = {each.process.pid for each in stack.supervisor.processes.values()}
    children = (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in own)
    return own.union(*(map(int, each) for each in children))


def disk_writes(stack):
    """Bytes that each process has given to a file system, by the kernel's count: also to files without a name."""
    return {pid: written(pid) for pid in processes(stack)}


def written(pid):
    """The same of one process."""
    return int(re.search(r"^write_bytes: (\d+)$", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)[1])


def open_files(pid):
    """The content of what a process has open, also of files that have no name any more."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("/") and not target.startswith(("/dev", "/proc")) and descriptor.is_file():
                yield target, descriptor.read_bytes()
