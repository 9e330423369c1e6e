"""Shards that move: another address behind the same name, more of them, old connections. Real servers on loopback."""

import asyncio
from contextlib import asynccontextmanager

import grpc

from services.gateway.settings import GatewaySettings
from services.local.stack import Ports
from services.runtime.server import server_options
from services.runtime.settings import load_settings
from tests.client.name_server import name_server
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc


class Replica(indexer_pb2_grpc.IndexerServicer):
    """One of several that could answer; says which it is."""

    def __init__(self, number):
        self._number = number
        self.peers = set()

    async def Search(self, request, context):
        self.peers.add(context.peer())
        return indexer_pb2.IndexerSearchResponse(points=self._number)


@asynccontextmanager
async def replica(address, number, options=()):
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *options])
    service = Replica(number)
    indexer_pb2_grpc.add_IndexerServicer_to_server(service, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)


async def who_answers(shard_set):
    """Which replica answered one search; None: nobody did."""
    found = await shard_set.fan_out(
        lambda stub, seconds: stub.Search(indexer_pb2.IndexerSearchRequest(), timeout=seconds), 20.0
    )
    return found.answers[0].points if found.answers else None


async def until(shard_set, wanted):
    """Searches until all of the `wanted` replicas, and nobody else, answer the last ten searches."""
    seen = []
    async with asyncio.timeout(25):  # gRPC would go on calling old addresses for 30
        while set(seen[-10:]) != wanted or len(seen) < 10:
            seen.append(await who_answers(shard_set))
            await asyncio.sleep(0.05)


async def test_a_shard_that_comes_back_under_another_address_is_found():
    port = Ports.free(1).gateway
    async with name_server() as (names, at):
        names.addresses = ["127.0.0.1"]
        shard_set = ShardSet([f"dns://{at}/shard-0.test:{port}"])
        async with replica(f"127.0.0.1:{port}", 1):
            await until(shard_set, {1})
        async with replica(f"127.0.0.2:{port}", 2):
            names.addresses = ["127.0.0.2"]
            await until(shard_set, {2})
        await shard_set.close()


async def test_all_replicas_behind_a_name_are_used_and_one_that_dies_costs_no_answer():
    port = Ports.free(1).gateway
    async with name_server() as (names, at):
        names.addresses = ["127.0.0.1", "127.0.0.2"]
        shard_set = ShardSet([f"dns://{at}/shard-0.test:{port}"])
        async with replica(f"127.0.0.1:{port}", 1):
            async with replica(f"127.0.0.2:{port}", 2):
                await until(shard_set, {1, 2})
            assert {await who_answers(shard_set) for _ in range(50)} == {1}
        await shard_set.close()


async def test_old_connections_give_way_so_that_new_replicas_get_their_share():
    port = Ports.free(1).gateway
    options = server_options(load_settings(GatewaySettings, max_connection_age_seconds=1))
    async with name_server() as (names, at):
        names.addresses = ["127.0.0.1"]
        shard_set = ShardSet([f"dns://{at}/shard-0.test:{port}"])
        async with replica(f"127.0.0.1:{port}", 1, options), replica(f"127.0.0.2:{port}", 2, options):
            await until(shard_set, {1})
            names.addresses = ["127.0.0.1", "127.0.0.2"]
            await until(shard_set, {1, 2})
        await shard_set.close()
