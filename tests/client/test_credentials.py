"""Tokens and TLS of the client, against real servers."""

import asyncio
import re
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.certificates import Authority
from vitrine import AsyncVitrine, Credentials, Tls, Vitrine
from vitrine.channels import open_channel
from vitrine.errors import InvalidArgumentError
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

TOKEN = "a-token-of-32-characters-0123456"


class Mirror(indexer_pb2_grpc.IndexerServicer):
    """Keeps the metadata of every call."""

    def __init__(self):
        self.seen = []

    def _note(self, context):
        self.seen.append([value for name, value in context.invocation_metadata() if name == "authorization"])

    async def Count(self, request, context):
        self._note(context)
        return indexer_pb2.CountResponse(points=1)

    async def Scan(self, request, context):
        self._note(context)
        yield indexer_pb2.ScanResponse()

    async def Upsert(self, requests, context):
        self._note(context)
        async for _ in requests:
            yield indexer_pb2.UpsertResponse()


@asynccontextmanager
async def mirror(server_credentials=None):
    servicer, server = Mirror(), grpc.aio.server()
    indexer_pb2_grpc.add_IndexerServicer_to_server(servicer, server)
    if server_credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", server_credentials)
    await server.start()
    yield f"127.0.0.1:{port}", servicer
    await server.stop(None)


async def call(address, credentials, **options):
    async with open_channel(address, credentials) as channel:
        return await indexer_pb2_grpc.IndexerStub(channel).Count(indexer_pb2.CountRequest(), timeout=20, **options)


async def test_every_kind_of_call_carries_the_token_and_what_else_its_caller_sends():
    async with mirror() as (address, servicer), open_channel(address, Credentials(token=TOKEN)) as channel:
        stub = indexer_pb2_grpc.IndexerStub(channel)
        await stub.Count(indexer_pb2.CountRequest(), metadata=(("authorization", "mine"),))
        assert len([page async for page in stub.Scan(indexer_pb2.ScanRequest())]) == 1
        stream = stub.Upsert()
        await stream.write(indexer_pb2.UpsertRequest())
        await stream.read()
        await stream.done_writing()
    assert servicer.seen == [["mine", f"Bearer {TOKEN}"], [f"Bearer {TOKEN}"], [f"Bearer {TOKEN}"]]


async def test_a_token_file_is_read_again_when_it_is_replaced(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    async with mirror() as (address, servicer), open_channel(address, Credentials(token=file)) as channel:
        stub = indexer_pb2_grpc.IndexerStub(channel)
        await stub.Count(indexer_pb2.CountRequest())
        (tmp_path / "next").write_text(TOKEN[::-1])
        (tmp_path / "next").replace(file)
        async with asyncio.timeout(20):
            while servicer.seen[-1] != [f"Bearer {TOKEN[::-1]}"]:
                await asyncio.sleep(0.05)
                await stub.Count(indexer_pb2.CountRequest())
        file.unlink()
        await asyncio.sleep(1.1)  # it looks again, finds nothing, and keeps what it had
        await stub.Count(indexer_pb2.CountRequest())
    assert servicer.seen[-1] == [f"Bearer {TOKEN[::-1]}"]


async def test_a_token_never_goes_over_plain_text_to_another_machine(tmp_path):
    for open_it in (
        lambda: open_channel("gateway.shop:50050", Credentials(token=TOKEN)),
        lambda: AsyncVitrine("10.0.0.1:50050", token=TOKEN),
        lambda: AsyncVitrine.direct("127.0.0.1:50051", ["10.0.0.1:50060"], Credentials(token=TOKEN)),
    ):
        with pytest.raises(InvalidArgumentError, match=r"a token is never sent to .* over plain text") as caught:
            open_it()
        assert TOKEN not in str(caught.value)
    with pytest.raises(InvalidArgumentError, match="over plain text"):
        Vitrine("10.0.0.1:50050", token=TOKEN)
    certificate = Authority(tmp_path).file
    await AsyncVitrine("10.0.0.1:50050", token=TOKEN, tls=Tls(certificate)).close()


@pytest.mark.parametrize(
    "token", ["", "short", "with space and more", "x" * 513, "line\nbreak-0123456789", "ümlaut-0123456789"]
)
def test_what_is_no_token_is_refused_and_not_repeated(token):
    with pytest.raises(InvalidArgumentError, match="token is not 16 to 512 letters") as caught:
        Credentials(token=token).bearer()
    assert not token or token not in str(caught.value)


def test_a_token_shows_in_no_representation():
    assert TOKEN not in repr(Credentials(token=TOKEN))


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        (Tls("missing.pem"), "TLS CA file missing.pem: No such file"),
        (Tls(__file__), "no PEM block"),
        (Tls(cert_file="client.pem"), "needs both its file and that of its key"),
    ],
)
def test_bad_tls_files_are_named(tls, told):
    with pytest.raises(InvalidArgumentError, match=re.escape(told)):
        open_channel("127.0.0.1:1", Credentials(tls))


async def test_the_server_must_be_one_that_the_authority_vouches_for(tmp_path):
    ours, theirs = Authority(tmp_path), Authority(tmp_path)
    certificate, key = (path.read_bytes() for path in ours.issue(identities=("shard.shop", "127.0.0.1")))
    client = ours.issue("client", ("gateway.shop",))
    credentials = grpc.ssl_server_credentials([(key, certificate)], ours.file.read_bytes(), True)
    async with mirror(credentials) as (address, _):
        await call(address, Credentials(Tls(ours.file, *client)))
        await call(address, Credentials(Tls(ours.file, *client, server_name="shard.shop")))
        for tls in (
            Tls(theirs.file, *client),
            Tls(ours.file, *client, server_name="other.shop"),
            Tls(ours.file),
            Tls(ours.file, *theirs.issue("stranger", ("gateway.shop",))),
            None,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(address, Credentials(tls))
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, tls
