"""The shards of an index: who they are, and asking all of them at once within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import grpc

from vitrine.channels import FANNED_OUT, open_channel
from vitrine.credentials import Credentials
from vitrine.errors import DeadlineError, from_rpc_error
from vitrine.fanout.breaker import Breaker, BreakerState
from vitrine.fanout.budget import RetryBudget
from vitrine.fanout.driver import drive
from vitrine.fanout.machine import FanOutMachine, Guard
from vitrine.fanout.observer import ShardObserver
from vitrine.fanout.policy import ShardPolicy
from vitrine.fanout.probing import Prober
from vitrine.fanout.result import FanOut, answers_needed
from vitrine.sharding import shard_of
from vitrine.v1 import indexer_pb2_grpc

__all__ = ["FanOut", "ShardCall", "ShardSet", "Stub", "TimedShardCall", "answers_needed", "call_within"]

Answer = TypeVar("Answer")
Stub: TypeAlias = "indexer_pb2_grpc.IndexerAsyncStub"
ShardCall: TypeAlias = Callable[["indexer_pb2_grpc.IndexerAsyncStub"], Awaitable[Answer]]
TimedShardCall: TypeAlias = Callable[["indexer_pb2_grpc.IndexerAsyncStub", float], Awaitable[Answer]]
"""Starts a call on one shard's stub that may take so many seconds."""


class ShardSet:
    """Channels to the shards of an index, in shard order."""

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: Credentials | None = None,
        *,
        policy: ShardPolicy = ShardPolicy(),  # noqa: B008 - immutable
        observer: ShardObserver | None = None,
    ) -> None:
        """Opens channels to `host:port` addresses; they connect when first used."""
        if not addresses:
            raise ValueError("addresses must name at least one shard")
        self.addresses = tuple(addresses)
        self._channels = [open_channel(address, credentials, multiplexed=FANNED_OUT) for address in addresses]
        self.stubs: list[Stub] = [indexer_pb2_grpc.IndexerStub(channel) for channel in self._channels]
        self._observer = observer
        self.breakers = [Breaker(policy, partial(self._breaker_changed, index)) for index in range(len(addresses))]
        self._guards = {
            index: Guard(breaker, RetryBudget(policy.retry_share, policy.retry_reserve))
            for index, breaker in enumerate(self.breakers)
        }
        self._probers = [
            Prober(channel, breaker, policy.probe_seconds)
            for channel, breaker in zip(self._channels, self.breakers, strict=True)
        ]
        if observer is not None:
            for index, breaker in enumerate(self.breakers):
                observer.breaker_changed(index, breaker.state)

    def __len__(self) -> int:
        return len(self.stubs)

    def owner(self, product_id: str) -> tuple[int, Stub]:
        """Returns the index and the stub of the shard that owns a product."""
        index = shard_of(product_id, len(self.stubs))
        return index, self.stubs[index]

    async def fan_out(self, call: TimedShardCall[Answer], timeout: float, *, needed: int = 0) -> FanOut[Answer]:
        """Asks every shard at once; a slow or dead one costs its own answer only.

        One that keeps failing is not asked until it is well again. A call that fails in passing is made twice, so it
        must be safe to make twice; gRPC makes those of its methods that `vitrine.channels` names only once.

        Args:
            call: Starts the call on one shard's stub, with the seconds that it may take.
            timeout: Seconds after which what has not answered has timed out, even if gRPC has not noticed yet.
            needed: Answers below which the rest is worth nothing: it ends as soon as they cannot be reached
                (`answers_needed`, `FanOut.raise_if_short`).

        Raises:
            InvalidArgumentError, PreconditionError, UnimplementedError, PermissionDeniedError, UnauthenticatedError:
                A shard refused the request itself.
        """
        return await self._ask(self._guards, call, timeout, needed)

    async def ask(self, index: int, call: TimedShardCall[Answer], timeout: float) -> Answer:
        """Asks one shard for what only it knows, as `fan_out` does; fails where it does not answer.

        Raises:
            VitrineError: What went wrong.
        """
        found = await self._ask({index: self._guards[index]}, call, timeout, 1)
        if index in found.answers:
            return found.answers[index]
        error = found.failed.get(index) or found.timed_out[index]
        found = FanOut()  # an error that is raised holds this frame, which would hold the error
        try:
            raise error
        finally:
            del error

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(*(prober.stop() for prober in self._probers))
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _ask(
        self, guards: dict[int, Guard], call: TimedShardCall[Answer], timeout: float, needed: int
    ) -> FanOut[Answer]:
        clock = asyncio.get_running_loop().time
        stubs = self.stubs
        machine: FanOutMachine[Answer] = FanOutMachine(
            guards, clock() + timeout, needed=needed, addresses=self.addresses
        )
        try:
            await drive(machine, lambda index, seconds: call(stubs[index], seconds), now=clock)
        finally:
            if self._observer is not None:
                _report(self._observer, machine.result)
        if (refusal := machine.refusal) is None:
            return machine.result
        del machine  # as in `ask`
        try:
            raise refusal
        finally:
            del refusal

    def _breaker_changed(self, index: int, state: BreakerState) -> None:
        if state is BreakerState.OPEN:
            self._probers[index].begin()
        if self._observer is not None:
            self._observer.breaker_changed(index, state)


def _report(observer: ShardObserver, found: FanOut[Answer]) -> None:
    for index in found.answers:
        observer.called(index, "answered")
    for index in found.failed:
        observer.called(index, "skipped" if index in found.skipped else "failed")
    for index in found.timed_out:
        observer.called(index, "timed_out")
    for index in found.abandoned:
        observer.called(index, "abandoned")
    for index in found.retried:
        observer.retried(index)


async def call_within(call: Awaitable[Answer], timeout: float) -> Answer:
    """Awaits one call; its failure or lateness becomes a VitrineError."""
    try:
        async with asyncio.timeout(timeout):
            return await call
    except TimeoutError:
        raise DeadlineError(f"no answer within {timeout:.3g} s") from None
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
