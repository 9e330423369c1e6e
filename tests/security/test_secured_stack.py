"""Whoever may not call is refused with the right code, by every service, on real processes."""

import asyncio

import grpc
import pytest

from tests.security.pictures import jpeg
from tests.security.secured import COLLECTION, token
from tests.watching import scrape
from vitrine import AsyncVitrine, Vitrine
from vitrine.channels import open_channel
from vitrine.errors import PermissionDeniedError, UnauthenticatedError, from_rpc_error
from vitrine.v1 import (
    embedder_pb2,
    embedder_pb2_grpc,
    indexer_pb2,
    indexer_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


ONE_OF_EACH = {
    "VisualSearch": (
        search_pb2_grpc.VisualSearchStub,
        {
            "read": ("Get", search_pb2.GetRequest(collection=COLLECTION, product_id="P1")),
            "write": ("RecordFeedback", search_pb2.RecordFeedbackRequest()),
        },
    ),
    "Embedder": (
        embedder_pb2_grpc.EmbedderStub,
        {"read": ("Embed", embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=jpeg(1))]))},
    ),
    "Indexer": (
        indexer_pb2_grpc.IndexerStub,
        {
            "read": ("Count", indexer_pb2.CountRequest(collection=COLLECTION)),
            "write": ("Delete", indexer_pb2.DeleteRequest(collection=COLLECTION)),
            "admin": ("DropCollection", indexer_pb2.DropCollectionRequest(collection="nothing")),
        },
    ),
}
MAY = {"reader": "read", "writer": "write", "admin": "admin"}
SERVICES = list(ONE_OF_EACH)


async def code_of(shop, service, credentials, method, request):
    async with open_channel(shop.services[service], credentials) as channel:
        try:
            await getattr(ONE_OF_EACH[service][0](channel), method)(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code(), from_rpc_error(error).message
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("service", SERVICES)
async def test_who_is_not_known_is_refused_by_every_service(shop, service):
    for method, request in ONE_OF_EACH[service][1].values():
        for name, told in ((None, "this certificate is not known here"), ("nobody", "this token is not known here")):
            answer = await code_of(shop, service, shop.credentials(name), method, request)
            assert answer == (grpc.StatusCode.UNAUTHENTICATED, told), method
        code, message = await code_of(shop, service, shop.credentials("old"), method, request)
        assert (code, "expired at 2020-01-01" in message) == (grpc.StatusCode.UNAUTHENTICATED, True)


@pytest.mark.parametrize("service", SERVICES)
async def test_the_wrong_scope_is_refused_by_every_service_and_the_right_one_is_not(shop, service):
    refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    for scope, (method, request) in ONE_OF_EACH[service][1].items():
        for name, may in MAY.items():
            code, message = await code_of(shop, service, shop.credentials(name), method, request)
            if may == scope:
                assert code not in refused, message
            else:
                assert code == grpc.StatusCode.PERMISSION_DENIED
                assert f"needs the scope {scope}; {name} has {may}" in message


async def test_another_collection_is_refused_by_gateway_and_shard(shop):
    for service in ("VisualSearch", "Indexer"):
        method, request = ONE_OF_EACH[service][1]["read"]
        code, message = await code_of(shop, service, shop.credentials("elsewhere"), method, request)
        assert (code, message) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "collection 'shop' is not among those of elsewhere: elsewhere",
        )
    async with AsyncVitrine(shop.stack.gateway, tls=shop.tls("stranger"), token=token("elsewhere")) as client:
        assert (await client.status()).collections == []


@pytest.mark.parametrize("service", SERVICES)
async def test_a_connection_without_a_certificate_or_without_tls_comes_to_nothing(shop, service):
    method, request = ONE_OF_EACH[service][1]["read"]
    for credentials in (shop.credentials("reader", of=None), None):
        code, _ = await code_of(shop, service, credentials, method, request)
        assert code == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("service", SERVICES)
async def test_what_is_oversized_or_malformed_is_refused_by_every_service(shop, service):
    method = ONE_OF_EACH[service][1]["read"][0]
    path = f"/vitrine.v1.{service}/{method}"
    async with open_channel(shop.services[service], shop.credentials("reader")) as channel:
        call = channel.unary_unary(path)
        for payload, expected in (
            (bytes(33 * 2**20), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (b"\xff" * 64, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(payload, timeout=60)
            assert caught.value.code() == expected
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=60, metadata=(("x-large", "x" * 20_000),))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_services_know_each_other_by_their_certificates(shop):
    async with AsyncVitrine(shop.stack.gateway, tls=shop.tls("stranger"), token=token("reader")) as client:
        answer = await client.search(COLLECTION, image=jpeg(3), k=3)
        assert answer.products[0].product_id == "P3"
        assert answer.coverage.shards_answered == 2
        assert [each.healthy for each in (await client.status()).components] == [True] * 3
    async with AsyncVitrine.direct(shop.stack.embedder, shop.stack.indexers, shop.credentials("reader")) as direct:
        assert (await direct.search(COLLECTION, image=jpeg(3), k=1)).products[0].product_id == "P3"


async def test_from_python_and_from_the_command_line(shop):
    def search():
        with Vitrine(shop.stack.gateway, tls=shop.tls("stranger"), token=token("reader")) as client:
            return client.search(COLLECTION, product_id="P1", k=2)

    assert len((await asyncio.to_thread(search)).products) == 2
    with pytest.raises(UnauthenticatedError, match="this certificate is not known here"):
        async with AsyncVitrine(shop.stack.gateway, tls=shop.tls("stranger")) as client:
            await client.search(COLLECTION, product_id="P1")
    with pytest.raises(PermissionDeniedError, match="needs the scope read"):
        async with AsyncVitrine(shop.stack.gateway, tls=shop.tls("stranger"), token=token("writer")) as client:
            await client.search(COLLECTION, product_id="P1")
    (token_file := shop.stack.data / "reader").write_text(token("reader") + "\n")
    status, out, err = await shop.vitrine("--token-file", token_file, "collections", "list", name="stranger")
    assert (status, COLLECTION in out) == (0, True), err
    status, _, err = await shop.vitrine("collections", "drop", COLLECTION, "--yes", name="gateway")
    assert (status, "needs the scope admin; gateway has read" in " ".join(err.split())) == (2, True), err


async def test_a_catalogue_job_without_the_right_is_told_so_and_does_not_try_for_ever(shop):
    for name, told in (("reader", "needs the scope write"), ("writer", "needs the scope read"), ("old", "expired at")):
        (token_file := shop.stack.data / name).write_text(token(name) + "\n")
        products = shop.stack.data.parent / "shop" / "products.csv"
        status, _, err = await shop.vitrine(
            *("--token-file", token_file, "ingest", products, "--collection", COLLECTION, "--again"), name="stranger"
        )
        assert (status, told in " ".join(err.split())) == (2, True), err


async def test_a_catalogue_job_that_may_write_needs_admin_only_to_create(shop):
    products = shop.stack.data.parent / "shop" / "products.csv"
    (token_file := shop.stack.data / "job").write_text(token("job") + "\n")
    command = ("--token-file", token_file, "ingest", products, "--collection", COLLECTION, "--again")
    status, _, err = await shop.vitrine(*command, name="stranger")
    assert (status, "needs the scope admin; job has read, write" in " ".join(err.split())) == (2, True), err
    status, out, err = await shop.vitrine(*command, "--existing", name="stranger")
    assert (status, "6 images stored" in out) == (0, True), err


async def test_refusals_are_counted_and_logged_without_tokens(shop):
    for name in ("nobody", "old"):
        await code_of(shop, "Indexer", shop.credentials(name), "Count", indexer_pb2.CountRequest())
    page = await scrape(shop.stack.ports.metrics[shop.stack.ports.indexers[0]])
    counted = {line.split(" ")[0] for line in page.splitlines() if line.startswith("vitrine_auth_refusals_total")}
    assert {f'vitrine_auth_refusals_total{{reason="{reason}"}}' for reason in ("unknown", "expired")} <= counted
    logs = {name: each.log.read_text() for name, each in shop.stack.supervisor.processes.items()}
    assert '"event": "call refused"' in logs["indexer-0"]
    for name, log in logs.items():
        for caller in ("nobody", "old", "reader", "elsewhere"):
            assert token(caller) not in log, name
