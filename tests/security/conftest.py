"""A secured stack that the tests of this folder share."""

import pytest_asyncio

from tests.security.pictures import catalogue
from tests.security.secured import COLLECTION, secured


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
