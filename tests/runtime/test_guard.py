"""Known callers over the wire: what each may do, how the others are refused, and what of it is logged."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.runtime.guard import Guard
from services.runtime.identities import load_directory
from services.runtime.interceptor import InFlight, ServiceInterceptor
from tests.certificates import Authority
from vitrine import Credentials, Tls
from vitrine.callers import current_caller
from vitrine.channels import open_channel
from vitrine.errors import UnauthenticatedError, UnavailableError, from_rpc_error
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc, indexer_pb2, indexer_pb2_grpc


def token(name):
    return f"token-of-{name}-0123456789"


ENTRY = '[[token]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = {scopes}\n{more}\n'


def entry(name, *scopes, more="", scopes_of=None):
    digest = hashlib.sha256(token(name).encode()).hexdigest()
    return ENTRY.format(name=scopes_of or name, digest=digest, scopes=list(scopes), more=more)


IDENTITIES = (
    entry("reader", "read")
    + entry("writer", "write")
    + entry("admin", "admin")
    + entry("shop", "read", "write", more='collections = ["shop"]')
    + entry("old", "read", "write", "admin", more="expires = 2020-01-01T00:00:00Z")
    + entry("service", "read", more="speaks_for_others = true")
    + '[[certificate]]\nname = "by-certificate"\nsubject = "app.shop"\nscopes = ["read"]\n'
    + '[[certificate]]\nname = "gone"\nsubject = "gone.shop"\nscopes = ["read"]\nexpires = 2020-01-01T00:00:00Z\n'
)


class Indexer(indexer_pb2_grpc.IndexerServicer):
    def __init__(self):
        self.callers = []

    async def Count(self, request, context):
        self.callers.append(current_caller())
        if request.collection == "behind":
            error = UnauthenticatedError("this token is not known here")
            error.remote = True
            raise error
        return indexer_pb2.CountResponse(points=7)

    async def DropCollection(self, request, context):
        return indexer_pb2.DropCollectionResponse()

    async def ListCollections(self, request, context):
        answer = indexer_pb2.ListCollectionsResponse()
        for name in ("other", "shop"):
            answer.collections.add().spec.name = name
        return answer

    async def Upsert(self, requests, context):
        async for request in requests:
            yield indexer_pb2.UpsertResponse(results=[indexer_pb2.UpsertResult(sequence=len(request.items))])


class Embedder(embedder_pb2_grpc.EmbedderServicer):
    async def Ingest(self, requests, context):
        async for _ in requests:
            yield embedder_pb2.IngestResponse()


@asynccontextmanager
async def serving(tmp_path, server_credentials=None):
    file = tmp_path / "auth.toml"
    file.write_text(IDENTITIES)
    guard, servicer = Guard(load_directory(file)), Indexer()
    server = grpc.aio.server(interceptors=[ServiceInterceptor(InFlight(8), 30.0, guard)])
    indexer_pb2_grpc.add_IndexerServicer_to_server(servicer, server)
    embedder_pb2_grpc.add_EmbedderServicer_to_server(Embedder(), server)
    if server_credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", server_credentials)
    await server.start()
    yield f"127.0.0.1:{port}", servicer
    await server.stop(None)


@pytest.fixture
async def guarded(tmp_path):
    async with serving(tmp_path) as (address, servicer):
        yield address, servicer


def bearer(name):
    return (("authorization", f"Bearer {token(name)}"),)


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), from_rpc_error(caught.value).message


def count(collection="shop"):
    return indexer_pb2.CountRequest(collection=collection)


def drop(collection="shop"):
    return indexer_pb2.DropCollectionRequest(collection=collection)


REFUSED = {
    "missing": ((), "no token: send `authorization: Bearer TOKEN`"),
    "malformed": ((("authorization", "Basic dXNlcjpwYXNz"),), "authorization must be `Bearer TOKEN`, once"),
    "malformed ": ((("authorization", "Bearer "),), "authorization must be"),
    "malformed  ": ((("authorization", "Bearer " + "x" * 513),), "authorization must be"),
    "malformed   ": ((*bearer("reader"), *bearer("reader")), "authorization must be"),
    "unknown": (bearer("nobody"), "this token is not known here"),
    "expired": (bearer("old"), "the token of old expired at 2020-01-01 00:00Z"),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_who_is_not_known_is_unauthenticated(guarded, reason):
    metadata, told = REFUSED[reason]
    labels = {"reason": reason.strip()}
    before = REGISTRY.get_sample_value("vitrine_auth_refusals_total", labels) or 0
    async with open_channel(guarded[0]) as channel:
        code, message = await refusal(indexer_pb2_grpc.IndexerStub(channel).Count(count(), metadata=metadata))
    assert (code, message) == (grpc.StatusCode.UNAUTHENTICATED, message)
    assert told in message
    assert REGISTRY.get_sample_value("vitrine_auth_refusals_total", labels) == before + 1
    assert guarded[1].callers == []


async def test_each_scope_opens_its_own_calls_only(guarded):
    async with open_channel(guarded[0]) as channel:
        stub = indexer_pb2_grpc.IndexerStub(channel)
        for name, allowed in (("reader", "read"), ("writer", "write"), ("admin", "admin")):
            who = {"metadata": bearer(name)}
            stream = stub.Upsert(**who)
            calls = {
                "read": stub.Count(count(), **who),
                "admin": stub.DropCollection(drop(), **who),
                "write": stream.read(),
            }
            if allowed == "write":
                await stream.write(indexer_pb2.UpsertRequest(collection="shop"))
            for scope, call in calls.items():
                if scope == allowed:
                    await call
                else:
                    code, message = await refusal(call)
                    assert code == grpc.StatusCode.PERMISSION_DENIED
                    assert f"needs the scope {scope}; {name} has {allowed}" in message
            stream.cancel()


async def test_a_caller_of_some_collections_sees_no_other(guarded):
    async with open_channel(guarded[0], Credentials(token=token("shop"))) as channel:
        stub = indexer_pb2_grpc.IndexerStub(channel)
        assert (await stub.Count(count("shop"))).points == 7
        for other in ("shops", "other", "", "behind"):
            code, message = await refusal(stub.Count(count(other)))
            assert code == grpc.StatusCode.PERMISSION_DENIED
            assert message == f"collection {other!r} is not among those of shop: shop"
        listed = await stub.ListCollections(indexer_pb2.ListCollectionsRequest())
        assert [each.spec.name for each in listed.collections] == ["shop"]
        stream = stub.Upsert()
        await stream.write(indexer_pb2.UpsertRequest(collection="shop"))
        await stream.read()
        await stream.write(indexer_pb2.UpsertRequest(collection="other"))
        assert (await refusal(stream.read()))[0] == grpc.StatusCode.PERMISSION_DENIED


async def test_an_ingestion_may_create_only_with_admin(guarded):
    async with open_channel(guarded[0], Credentials(token=token("writer"))) as channel:
        stub = embedder_pb2_grpc.EmbedderStub(channel)
        for creates in (False, True):
            stream = stub.Ingest()
            start = embedder_pb2.IngestStart(collection="c", create_if_missing=creates)
            await stream.write(embedder_pb2.IngestRequest(start=start))
            if creates:
                code, message = await refusal(stream.read())
                assert (code, "needs the scope admin" in message) == (grpc.StatusCode.PERMISSION_DENIED, True)
            else:
                await stream.read()
            stream.cancel()


async def test_the_callers_name_is_that_of_its_identity(guarded):
    async with open_channel(guarded[0]) as channel:
        stub = indexer_pb2_grpc.IndexerStub(channel)
        for name, extra in (
            ("reader", ()),
            ("reader", (("x-vitrine-client", "someone-else"),)),
            ("service", (("x-vitrine-client", "shop-app"),)),
            ("service", ()),
        ):
            await stub.Count(count(), metadata=(*bearer(name), *extra))
    assert guarded[1].callers == ["reader", "reader", "shop-app", "service"]


async def test_refused_behind_this_service_is_not_the_callers_fault(guarded):
    async with open_channel(guarded[0]) as channel:
        call = indexer_pb2_grpc.IndexerStub(channel).Count(count("behind"), metadata=bearer("reader"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    error = from_rpc_error(caught.value)
    assert isinstance(error, UnavailableError)
    assert error.message == "this service was refused by one that it needs: this token is not known here"


async def test_a_certificate_says_who_is_calling(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = (path.read_bytes() for path in authority.issue())
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.file.read_bytes(), True)

    def client(name, identities, **options):
        return Tls(authority.file, *authority.issue(name, identities, **options))

    async with serving(tmp_path, credentials) as (address, servicer):

        async def call(tls, metadata=()):
            async with open_channel(address, Credentials(tls)) as channel:
                return await indexer_pb2_grpc.IndexerStub(channel).Count(count(), metadata=metadata)

        await call(client("app", ("10.0.0.1", "app.shop")))
        await call(client("common", ("other.shop",), common_name="app.shop"))
        await call(client("app", ("app.shop",)), bearer("reader"))  # a token counts first
        assert servicer.callers == ["by-certificate", "by-certificate", "reader"]
        for tls, metadata, told in (
            (client("stranger", ("stranger.shop",)), (), "this certificate is not known here"),
            (client("gone", ("gone.shop",)), (), "the certificate of gone expired"),
            (client("app", ("app.shop",)), bearer("nobody"), "this token is not known here"),
        ):
            code, message = await refusal(call(tls, metadata))
            assert (code, told in message) == (grpc.StatusCode.UNAUTHENTICATED, True), message


async def test_refusals_are_logged_without_secrets_and_without_a_flood(guarded):
    guessed = "guessed-token-0123456789"
    async with open_channel(guarded[0]) as channel:
        stub = indexer_pb2_grpc.IndexerStub(channel)
        with capture_logs() as lines:
            await asyncio.gather(
                *(stub.Count(count(), metadata=(("authorization", f"Bearer {guessed}"),)) for _ in range(50)),
                *(stub.Count(count("x"), metadata=bearer("shop")) for _ in range(50)),
                return_exceptions=True,
            )
    refused = [line for line in lines if line["event"] == "call refused"]
    assert 1 <= len(refused) <= 20
    assert guessed not in str(lines)
    assert token("shop") not in str(lines)
