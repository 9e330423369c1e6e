"""The shards of an index: who they are, and asking all of them at once within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import grpc

from vitrine.channels import open_channel
from vitrine.credentials import Credentials
from vitrine.errors import (
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    UnimplementedError,
    VitrineError,
    from_rpc_error,
)
from vitrine.sharding import shard_of
from vitrine.v1 import indexer_pb2_grpc

Answer = TypeVar("Answer")
Stub: TypeAlias = "indexer_pb2_grpc.IndexerAsyncStub"
ShardCall: TypeAlias = Callable[["indexer_pb2_grpc.IndexerAsyncStub"], Awaitable[Answer]]
TimedShardCall: TypeAlias = Callable[["indexer_pb2_grpc.IndexerAsyncStub", float], Awaitable[Answer]]
"""Starts a call on one shard's stub that may take so many seconds."""

# The request itself is wrong, so every shard would say the same: no answer is better than part of one.
_CALLERS_FAULT = (InvalidArgumentError, PreconditionError, UnimplementedError)


@dataclass
class FanOut(Generic[Answer]):
    """What became of one question to every shard, by shard index."""

    answers: dict[int, Answer] = field(default_factory=dict)
    failed: dict[int, VitrineError] = field(default_factory=dict)
    """Also those skipped."""
    skipped: set[int] = field(default_factory=set)
    """Not asked, because they failed again and again."""
    timed_out: dict[int, VitrineError] = field(default_factory=dict)

    def raise_if_unanswered(self) -> None:
        """Raises what the shards agree on where none of them answered.

        Raises:
            NotFoundError: Every shard that could be reached says so.
            DeadlineError: None answered in time.
            UnavailableError: None could be asked.
        """
        if self.answers:
            return
        missing = [error for error in self.failed.values() if isinstance(error, NotFoundError)]
        if missing:
            raise missing[0]
        if self.timed_out and not self.failed:
            raise DeadlineError(f"none of {len(self.timed_out)} shards answered in time")
        reasons = "; ".join(f"shard {index}: {error.message}" for index, error in sorted(self.failed.items()))
        raise UnavailableError(f"no shard answered ({reasons})")


class ShardSet:
    """Channels to the shards of an index, in shard order."""

    def __init__(self, addresses: Sequence[str], credentials: Credentials | None = None) -> None:
        if not addresses:
            raise ValueError("addresses must name at least one shard")
        self.addresses = tuple(addresses)
        self._channels = [open_channel(address, credentials) for address in addresses]
        self.stubs: list[Stub] = [indexer_pb2_grpc.IndexerStub(channel) for channel in self._channels]

    def __len__(self) -> int:
        return len(self.stubs)

    def owner(self, product_id: str) -> tuple[int, Stub]:
        """Returns the index and the stub of the shard that owns a product."""
        index = shard_of(product_id, len(self.stubs))
        return index, self.stubs[index]

    async def fan_out(self, call: TimedShardCall[Answer], timeout: float) -> FanOut[Answer]:
        """Asks every shard at once; a slow or dead one costs its own answer only.

        Args:
            call: Starts the call on one shard's stub, with the seconds that it may take.
            timeout: Seconds after which what has not answered has timed out, even if gRPC has not noticed yet.

        Raises:
            InvalidArgumentError, PreconditionError, UnimplementedError: A shard refused the request itself.
        """
        result: FanOut[Answer] = FanOut()

        async def ask(index: int, stub: Stub) -> None:
            try:
                result.answers[index] = await call_within(call(stub, timeout), timeout)
            except _CALLERS_FAULT:
                raise
            except DeadlineError as error:
                result.timed_out[index] = error
            except VitrineError as error:
                result.failed[index] = error

        try:
            async with asyncio.TaskGroup() as group:
                for index, stub in enumerate(self.stubs):
                    group.create_task(ask(index, stub))
        except* _CALLERS_FAULT as refusals:
            raise _first(refusals) from None
        return result

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def call_within(call: Awaitable[Answer], timeout: float) -> Answer:
    """Awaits one call; its failure or lateness becomes a VitrineError."""
    try:
        async with asyncio.timeout(timeout):
            return await call
    except TimeoutError:
        raise DeadlineError(f"no answer within {timeout:.3g} s") from None
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None


def _first(group: BaseExceptionGroup[VitrineError]) -> VitrineError:
    """Returns the first plain error of a group; errors raised by tasks of a TaskGroup do not nest."""
    first = group.exceptions[0]
    assert isinstance(first, VitrineError)
    return first
