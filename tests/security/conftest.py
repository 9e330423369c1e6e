"""Stacks that the tests of this folder share: one secured, and one as it runs by default."""

import shutil

import pytest_asyncio

from services.local.stack import Ports, Stack
from tests.conftest import STEADY
from tests.embedder.cache.redis_server import BINARY, RedisServer
from tests.security.marked import photo
from tests.security.pictures import catalogue
from tests.security.searched import Searched, disk_writes, files, ingest, search_every_way, until_quiet, vector_of
from tests.security.secured import COLLECTION, secured

SEARCHES = 4


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shop(tmp_path_factory, tiny_model):
    """A secured stack with a small catalogue, put there through the command line."""
    folder = tmp_path_factory.mktemp("secured")
    shop = secured(folder, tiny_model)
    async with shop.stack.supervisor:
        await shop.stack.start()
        status, _, err = await shop.vitrine("ingest", catalogue(folder / "shop"), "--collection", COLLECTION)
        assert status == 0, err
        yield shop


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def searched(tmp_path_factory, tiny_model):
    """A stack with default settings, but for the level of its logs and (where there is one) a Redis, once searched."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "tmp").mkdir()
    environment = STEADY | {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "tmp")}
    for service in ("GATEWAY", "EMBEDDER", "INDEXER"):
        environment |= {f"VITRINE_{service}_LOG_LEVEL": "debug", f"VITRINE_{service}_LOG_FORMAT": "json"}
    cache = RedisServer(folder).start() if BINARY else None
    if cache:
        environment["VITRINE_EMBEDDER_CACHE_REDIS_URL"] = f"redis://127.0.0.1:{cache.port}/0"
    stack = Stack(folder / "stack", ports=Ports.free(2), model_dir=tiny_model, environment=environment)
    async with stack.supervisor:
        await stack.start()
        await ingest(stack, catalogue(folder / "shop"))
        await until_quiet(folder)
        before, written = files(folder), disk_writes(stack)
        photos = [photo(seed) for seed in range(SEARCHES)]
        await search_every_way(stack, photos)
        yield Searched(stack, folder, cache, before, written, photos, await vector_of(stack, photos[0]))
    if cache:
        cache.kill()
    shutil.rmtree(folder, ignore_errors=True)
