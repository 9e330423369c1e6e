"""A stack to be asked anything."""

import pytest_asyncio

from services.local.stack import Ports, Stack
from tests.conftest import STEADY
from tests.security.pictures import catalogue
from tests.security.searched import ingest


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stack(tmp_path_factory, tiny_model):
    """Real processes with the collection `shop`."""
    folder = tmp_path_factory.mktemp("fuzz")
    stack = Stack(folder / "stack", shards=1, ports=Ports.free(1), model_dir=tiny_model, environment=STEADY)
    async with stack.supervisor:
        await stack.start()
        await ingest(stack, catalogue(folder / "shop"))
        yield stack
