"""A channel whose calls go on streams: which calls, on which stream, to which of several servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any, Final

import grpc

from vitrine.callers import CLIENT_HEADER
from vitrine.credentials import AUTHORIZATION
from vitrine.fanout.budget import RetryBudget
from vitrine.multiplex.limits import MAX_CALL_BYTES
from vitrine.multiplex.pending import Metadata, Method, Pending
from vitrine.multiplex.stream import CallStream
from vitrine.v1 import multiplex_pb2
from vitrine.wrapping import WrappingChannel

EXCHANGE: Final = "/vitrine.v1.Multiplex/Exchange"
# What the stream itself says of its caller; the rest is each call's own.
_STREAM_METADATA = frozenset({AUTHORIZATION, CLIENT_HEADER})
# Calls under way on one stream; further ones are made by themselves.
_MOST_CALLS = 1_000
# How long a server that takes no calls on a stream is left in peace: it may be a newer one by then.
_FORGET_SECONDS = 60.0
# How soon it is looked again whether there are more servers: connections to them may just be under way. Twice as long
# every time that there are none.
_LOOK_SECONDS = 0.1
_LONGEST_LOOK_SECONDS = 10.0
_LOST_SECONDS = 1.0
_CLOSING_SECONDS = 0.5
# As gRPC's own throttle (`vitrine.channels`).
_RETRY_SHARE = 0.1
_RETRIES_AT_ONCE = 10.0


class MultiplexChannel(WrappingChannel):
    """Makes calls of some methods on streams, one to each server that the channel's name stands for.

    gRPC does not tell how many these are. With `round_robin` it gives one stream after the other to one server after
    the other, and each server says which one it is; so streams are opened until a known one comes again: at first,
    whenever one ended, and at least every 10 s. A call goes where the fewest are under way. For one event loop, as
    all of grpc.aio.
    """

    def __init__(self, channel: grpc.aio.Channel, methods: Collection[str], *, retried: Collection[str] = ()) -> None:
        """Wraps a channel.

        Args:
            channel: Its calls are made as they are where they cannot go on a stream.
            methods: The unary ones that can, `/package.Service/Method`.
            retried: Those of them whose calls may be made twice: one that found no server (UNAVAILABLE) is made again
                by itself, a tenth of all calls at most.
        """
        super().__init__(channel)
        self._methods = frozenset(methods)
        self._retried = frozenset(retried)
        self._budget = RetryBudget(_RETRY_SHARE, _RETRIES_AT_ONCE)
        self._open = channel.stream_stream(
            EXCHANGE,
            request_serializer=multiplex_pb2.ExchangeRequest.SerializeToString,
            response_deserializer=multiplex_pb2.ExchangeResponse.FromString,
        )
        self._streams: list[CallStream] = []
        """Those that take calls."""
        self._unended: set[CallStream] = set()
        self._unsupported_until = 0.0
        self._look_at = 0.0
        self._pause = _LOOK_SECONDS

    def wrap(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """As `WrappingChannel`: what does not go on a stream is as it was."""
        return method

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        **options: Any,
    ) -> Any:
        """As `grpc.aio.Channel`."""
        alone = self._channel.unary_unary(method, request_serializer, response_deserializer, **options)
        if method not in self._methods:
            return alone
        encode, decode = request_serializer or bytes, response_deserializer or bytes
        return partial(self._call, Method(method, alone, encode, decode, method in self._retried))

    async def close(self, grace: float | None = None) -> None:
        """As `grpc.aio.Channel`; returns once nothing is left of the streams."""
        for stream in self._streams:
            stream.leave()
        self._streams.clear()  # a call on a closed channel is refused by gRPC, which opens no stream
        # In order where nothing is under way: servers count a stream that is cut off as cancelled.
        ending = [asyncio.ensure_future(stream.wait_ended()) for stream in self._unended if not stream.under_way]
        if ending:
            await asyncio.wait(ending, timeout=_CLOSING_SECONDS)
        await self._channel.close(grace)
        await asyncio.gather(*(stream.wait_ended() for stream in tuple(self._unended)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def greeted(self, stream: CallStream) -> None:
        """As `Owner`."""
        if any(other.server == stream.server for other in self._streams if other is not stream):
            self._streams.remove(stream)
            stream.leave()
            self._look_after(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_LOOK_SECONDS)
        else:
            self._pause = _LOOK_SECONDS
            self._look_after(0.0)

    def ended(self, stream: CallStream, code: grpc.StatusCode) -> None:
        """As `Owner`."""
        self._streams.remove(stream)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            self._unsupported_until = asyncio.get_running_loop().time() + _FORGET_SECONDS
        self._pause = _LOOK_SECONDS
        self._look_after(0.0 if code is grpc.StatusCode.OK else _LOST_SECONDS)

    def gone(self, stream: CallStream) -> None:
        """As `Owner`."""
        self._unended.discard(stream)

    def retries(self, pending: Pending) -> bool:
        """As `Owner`."""
        return pending.method.retried and self._budget.take()

    def _call(
        self,
        method: Method,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Awaitable[Any]:
        content = method.encode(request)
        metadata = tuple(metadata or ())
        stream = None if options or len(content) > MAX_CALL_BYTES else self._choose(metadata)
        if stream is None:
            return method.alone(request, timeout=timeout, metadata=metadata or None, **options)
        self._budget.called()
        pending = Pending(method, request, timeout, metadata)
        stream.send(pending, content)
        return pending

    def _look_after(self, seconds: float) -> None:
        self._look_at = asyncio.get_running_loop().time() + seconds

    def _choose(self, metadata: Metadata) -> CallStream | None:
        """Returns the stream for a call; None: it is made by itself."""
        now = asyncio.get_running_loop().time()
        if now < self._unsupported_until:
            return None
        if not self._streams or (now >= self._look_at and all(stream.server for stream in self._streams)):
            said = tuple(each for each in metadata if each[0] in _STREAM_METADATA)
            opened = CallStream(self._open(metadata=said or None), self)
            self._streams.append(opened)
            self._unended.add(opened)
        stream = min(self._streams, key=_burden)
        return stream if stream.under_way < _MOST_CALLS else None


def _burden(stream: CallStream) -> tuple[bool, int]:
    """Orders streams: first those whose server is known to take calls, then by calls under way."""
    return not stream.server, stream.under_way
