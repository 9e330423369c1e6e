"""Every RPC of every service against real processes: whatever is sent, it is the caller's error or an answer.

Never INTERNAL or UNKNOWN, also not for an item in a stream; never a process that dies or hears nothing any more.
"""

import asyncio
import random

import grpc
import pytest

from tests.fuzz.messages import fill, statuses
from tests.runtime.test_permissions import METHODS
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc, indexer_pb2, indexer_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS, SLOW_CALLS = 20, 600
SECONDS = 20
DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
DEFECT_NUMBERS = {code.value[0] for code in DEFECTS}


def channel_to(address):
    # Not grpc.aio: where a server ends a stream that is being written, it says INTERNAL, of its own making.
    return grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])


def address_of(stack, name):
    shard = stack.indexers[0]
    return {"Embedder": stack.embedder, "Indexer": shard, "Multiplex": shard, "VisualSearch": stack.gateway}[
        name.removeprefix("/vitrine.v1.").partition("/")[0]
    ]


def space_of(stack):
    """The embedding space of the collection, so that vectors fit it."""
    with channel_to(stack.embedder) as channel:
        model = embedder_pb2_grpc.EmbedderStub(channel).GetModel(embedder_pb2.GetModelRequest(), timeout=SECONDS)
    return {"dim": model.dim, "fingerprint": model.fingerprint}


def send(channel, name, payloads):
    """Makes one call; returns its code, what it says, and its answers."""
    method = METHODS[name]
    codec = {"response_deserializer": method.output_type._concrete_class.FromString}
    answers = []
    try:
        if method.client_streaming and method.server_streaming:
            answers.extend(channel.stream_stream(name, **codec)(iter(payloads), timeout=SECONDS))
        elif method.server_streaming:
            answers.extend(channel.unary_stream(name, **codec)(payloads[0], timeout=SECONDS))
        else:
            answers.append(channel.unary_unary(name, **codec)(payloads[0], timeout=SECONDS))
    except grpc.RpcError as error:
        return error.code(), error.details(), answers
    return grpc.StatusCode.OK, "", answers


def messages(name, seed, space):
    """What one call sends: one to four messages."""
    source = random.Random(seed)
    kind = METHODS[name].input_type._concrete_class
    return [fill(kind(), source, **space).SerializeToString() for _ in range(source.choice((1, 1, 2, 4)))]


def check(channel, name, payloads, what):
    code, details, answers = send(channel, name, payloads)
    assert code not in DEFECTS, (name, what, code, details)
    assert code is not grpc.StatusCode.UNAVAILABLE, (name, what, details)
    for answer in answers:
        assert not DEFECT_NUMBERS & set(statuses(answer)), (name, what, answer)


def check_alive(stack):
    for each in stack.supervisor.processes.values():
        assert each.process.returncode is None, each.tail()
        assert "Traceback" not in each.log.read_text(), each.tail()
    with channel_to(stack.indexers[0]) as channel:
        indexer_pb2_grpc.IndexerStub(channel).ListCollections(indexer_pb2.ListCollectionsRequest(), timeout=30)


def ask(stack, name, calls, seed):
    space = space_of(stack)
    with channel_to(address_of(stack, name)) as channel:
        for number in range(seed, seed + calls):
            check(channel, name, messages(name, number, space), f"seed {number}")
    check_alive(stack)


def ask_nonsense(stack, name):
    source = random.Random(7)
    kind = METHODS[name].input_type._concrete_class
    whole = fill(kind(), source).SerializeToString() or b"\x0a"
    with channel_to(address_of(stack, name)) as channel:
        for payload in (*(source.randbytes(size) for size in (1, 9, 200, 5_000)), whole[:-1] + b"\xff"):
            check(channel, name, [payload], payload[:40])
        # A field that promises more bytes than there are.
        code, _, _ = send(channel, name, [b"\x0a\xff\xff\xff\xff\x0f"])
        assert code is grpc.StatusCode.INVALID_ARGUMENT
    check_alive(stack)


@pytest.mark.parametrize("name", METHODS)
async def test_no_message_is_a_defect(stack, name):
    await asyncio.to_thread(ask, stack, name, CALLS, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
async def test_no_message_is_a_defect_in_many_tries(stack, name):
    await asyncio.to_thread(ask, stack, name, SLOW_CALLS, 1_000_000)


@pytest.mark.parametrize("name", METHODS)
async def test_bytes_that_are_no_message_are_the_callers_error(stack, name):
    await asyncio.to_thread(ask_nonsense, stack, name)
