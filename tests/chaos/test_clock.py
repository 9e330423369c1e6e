"""The wall clock jumps, there and back, while versions are the time of arrival."""

import os
import time
from pathlib import Path

import pytest

from services.local.stack import ROOT
from tests.chaos.load import COLLECTION, DEADLINE, GALLERY
from tests.chaos.trouble import trouble
from vitrine.channels import open_channel
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, indexer_pb2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOUR = 3_600


async def arrive(embedder, product):
    """Writes a product without a version; returns the ack."""
    key = common_pb2.PointKey(product_id=product, image_id="i")
    image = embedder_pb2.ImageInput(data=GALLERY[0].read_bytes())
    start = embedder_pb2.IngestStart(collection=COLLECTION)

    async def requests():
        yield embedder_pb2.IngestRequest(start=start)
        yield embedder_pb2.IngestRequest(item=embedder_pb2.IngestItem(sequence=1, key=key, image=image))

    async with open_channel(embedder) as channel:
        stub = embedder_pb2_grpc.EmbedderStub(channel)
        [ack] = [each async for each in stub.Ingest(requests(), timeout=10 * DEADLINE)]
    assert ack.status.code == 0, ack
    return ack


async def test_a_clock_that_jumps_loses_nothing_and_says_what_it_kept(make_stack, tmp_path):
    offset = tmp_path / "offset"
    offset.write_text("0")
    paths = [str(Path(__file__).parent), str(ROOT), str(ROOT / "clients"), os.environ.get("PYTHONPATH", "")]
    stack = make_stack(environment={"PYTHONPATH": os.pathsep.join(paths), "CLOCK_OFFSET_FILE": str(offset)})
    async with trouble(stack, tmp_path) as found:
        shards = ShardSet(stack.indexers)

        async def version(product):
            _, stub = shards.owner(product)
            request = indexer_pb2.IndexerGetRequest(
                collection=COLLECTION, keys=[common_pb2.PointKey(product_id=product, image_id="i")]
            )
            [point] = (await stub.Get(request, timeout=DEADLINE)).points
            return point.version / 1_000

        moment = time.monotonic()
        assert not (await arrive(stack.embedder, "arrived")).stale
        assert abs(await version("arrived") - time.time()) < HOUR / 10

        offset.write_text(str(HOUR))
        assert not (await arrive(stack.embedder, "arrived")).stale
        # What the service itself took for the time says that its clock did jump.
        ahead = await version("arrived")
        assert abs(ahead - time.time() - HOUR) < HOUR / 10
        await found.load.until_answers(5)
        await found.load.until_acked(10)

        offset.write_text("0")
        # By its clock this write is older than what is stored: it is not taken, and the ack says so.
        assert (await arrive(stack.embedder, "arrived")).stale
        assert await version("arrived") == ahead
        assert not (await arrive(stack.embedder, "arrived-later")).stale
        assert abs(await version("arrived-later") - time.time()) < HOUR / 10
        await found.load.until_answers(5)
        assert all(each.whole for each in found.load.journal.since(moment) if each.kind != "words")
        for alert in (
            "NothingServes",
            "NotServing",
            "BreakerOpen",
            "SearchAvailabilityBurnsFast",
            "CertificateExpires",
        ):
            assert not await found.is_firing(alert), alert
        await shards.close()
