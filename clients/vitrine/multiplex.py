"""Unary calls of a channel on one stream, for whoever makes many to one server (docs/decisions/0027).

In Python an RPC costs its two sides several times what a message on a stream costs, and calls that are made at the same
time share a message. Whoever makes them sees no difference; against a server that takes none on a stream, and where a
request or a response is large, they are RPCs of their own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
from grpc_status import rpc_status

from vitrine.callers import CLIENT_HEADER
from vitrine.credentials import AUTHORIZATION
from vitrine.v1 import multiplex_pb2
from vitrine.wrapping import WrappingChannel

MAX_CALL_BYTES: Final = 64 * 2**10
"""Of a request that may come with others: a larger one would keep them waiting."""
MAX_MESSAGE_BYTES: Final = 2**20
"""At which a message is sent, and of one response: a limit that every client and server takes."""

_EXCHANGE = "/vitrine.v1.Multiplex/Exchange"
# What the stream itself says of its caller; the rest is each call's own.
_STREAM_METADATA = frozenset({AUTHORIZATION, CLIENT_HEADER})
# Calls under way on one stream; further ones are made by themselves.
_MOST_CALLS = 1_000
# How long a server that takes no calls on a stream is left in peace: it may be a newer one by then.
_FORGET_SECONDS = 60.0

# How a stream ends that was lost; what a call itself fails with comes as its answer.
_LOST = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED})

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Method:
    """One method: how it is called by itself, and how its messages are written and read."""

    path: str
    alone: Callable[..., Awaitable[Any]]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class _Pending(asyncio.Future[Any]):
    """One call on a stream, as its caller awaits it."""

    method: _Method
    request: Any
    timeout: float | None
    metadata: Metadata
    timer: asyncio.TimerHandle | None = None

    def fail(self, code: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, Any]] = ()) -> None:
        """Ends it as a failed RPC ends."""
        self.set_exception(
            grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=details)
        )


class MultiplexChannel(WrappingChannel):
    """Makes calls of some methods on a stream. Those of one loop only, as all of grpc.aio."""

    def __init__(self, channel: grpc.aio.Channel, methods: Collection[str]) -> None:
        """`methods`: the unary ones, `/package.Service/Method`."""
        super().__init__(channel)
        self._methods = frozenset(methods)
        self._open = channel.stream_stream(
            _EXCHANGE,
            request_serializer=multiplex_pb2.ExchangeRequest.SerializeToString,
            response_deserializer=multiplex_pb2.ExchangeResponse.FromString,
        )
        self._stream: _Stream | None = None
        self._not_before = 0.0

    def wrap(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """As `WrappingChannel`: nothing is added to what does not go on the stream."""
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
        return partial(self._call, _Method(method, alone, request_serializer or bytes, response_deserializer or bytes))

    def _call(
        self,
        method: _Method,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Awaitable[Any]:
        content = method.encode(request)
        metadata = tuple(metadata or ())
        stream = None if options or len(content) > MAX_CALL_BYTES else self._present(metadata)
        if stream is None:
            return method.alone(request, timeout=timeout, metadata=metadata or None, **options)
        pending = _Pending()
        pending.method, pending.request, pending.timeout, pending.metadata = method, request, timeout, metadata
        stream.send(pending, content)
        return pending

    def _present(self, metadata: Metadata) -> _Stream | None:
        """Returns the stream to call on; None: none, for now."""
        stream = self._stream
        if stream is None or not stream.takes_calls:
            if asyncio.get_running_loop().time() < self._not_before:
                return None
            opened = self._open(metadata=tuple(each for each in metadata if each[0] in _STREAM_METADATA) or None)
            stream = self._stream = _Stream(opened, self._unsupported)
        return stream if stream.under_way < _MOST_CALLS else None

    def _unsupported(self) -> None:
        self._not_before = asyncio.get_running_loop().time() + _FORGET_SECONDS


class _Stream:
    """One stream, from its opening to its end."""

    def __init__(self, stream: Any, unsupported: Callable[[], None]) -> None:
        self._stream = stream
        self._unsupported = unsupported
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._calls: deque[multiplex_pb2.Call] = deque()
        self._cancelled: list[int] = []
        self._news = asyncio.Event()
        self._heard = asyncio.Event()
        self.takes_calls = True
        """Whether calls can be made on it: it has not ended, and the server did not ask to leave it."""
        self._loop = asyncio.get_running_loop()
        # Held here: the loop itself holds tasks only weakly.
        self._writer = self._loop.create_task(self._write())
        self._reader = self._loop.create_task(self._read())

    @property
    def under_way(self) -> int:
        """Calls that are not answered yet."""
        return len(self._pending)

    def send(self, pending: _Pending, content: bytes) -> None:
        """Makes one call, with the others of this round of the loop."""
        number = next(self._numbers)
        timeout = pending.timeout
        self._pending[number] = pending
        self._calls.append(
            multiplex_pb2.Call(
                id=number,
                method=pending.method.path,
                request=content,
                timeout_seconds=0.0 if timeout is None else max(timeout, 1e-6),
                metadata=[multiplex_pb2.Header(key=key, value=value) for key, value in pending.metadata],
            )
        )
        if timeout is not None:
            pending.timer = self._loop.call_later(timeout, self._late, number)
        pending.add_done_callback(partial(self._done, number))
        self._news.set()

    def _done(self, number: int, pending: asyncio.Future[Any]) -> None:
        if self._pending.pop(number, None) is not None and self.takes_calls:
            self._cancelled.append(number)  # before its answer: the caller left
            self._news.set()
        if isinstance(pending, _Pending) and pending.timer is not None:
            pending.timer.cancel()

    def _late(self, number: int) -> None:
        if pending := self._pending.pop(number, None):
            pending.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    async def _write(self) -> None:
        """Sends what there is until the server asks to leave; a stream that ends by itself is the reader's business."""
        try:
            # A message to a stream that was refused hides from grpc.aio (1.85) what it was refused with.
            await self._heard.wait()
            while self.takes_calls:
                await self._news.wait()
                self._news.clear()
                while self._calls or self._cancelled:
                    await self._stream.write(self._next())
            await self._stream.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return

    def _next(self) -> multiplex_pb2.ExchangeRequest:
        request = multiplex_pb2.ExchangeRequest(cancelled=self._cancelled)
        self._cancelled.clear()
        size = 0
        while self._calls and size < MAX_MESSAGE_BYTES - MAX_CALL_BYTES:
            call = self._calls.popleft()
            if call.id in self._pending:
                size += len(call.request)
                request.calls.append(call)
        return request

    async def _read(self) -> None:
        code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
        details = "the stream of calls ended"
        trailing: Sequence[tuple[str, Any]] = ()
        try:
            while (response := await self._stream.read()) is not grpc.aio.EOF:
                self._heard.set()
                for answer in response.answers:
                    if pending := self._pending.pop(answer.id, None):
                        self._settle(pending, answer)
                if response.going_away:
                    self.takes_calls = False
                    self._news.set()
            if (ended := await self._stream.code()) is not grpc.StatusCode.OK:
                code, details = ended, await self._stream.details()
                trailing = tuple(await self._stream.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            code, details, trailing = error.code(), error.details() or "", tuple(error.trailing_metadata())
        except asyncio.CancelledError:
            code = None
        self._end(code, details, trailing)

    def _settle(self, pending: _Pending, answer: multiplex_pb2.Answer) -> None:
        if pending.done():
            return
        kind = answer.WhichOneof("outcome")
        if kind == "response":
            try:
                pending.set_result(pending.method.decode(answer.response))
            except Exception as error:  # as gRPC has it
                pending.fail(grpc.StatusCode.INTERNAL, f"the response cannot be read: {error}")
        elif kind == "status":
            status = rpc_status.to_status(answer.status)
            said = [(each.key, each.value) for each in answer.trailing_metadata]
            pending.fail(status.code, status.details or "", (*(status.trailing_metadata or ()), *said))
        else:
            self._call_alone(pending)

    def _end(self, code: grpc.StatusCode | None, details: str, trailing: Sequence[tuple[str, Any]]) -> None:
        """Ends what is under way; code None: the channel was closed."""
        self.takes_calls = False
        self._writer.cancel()
        if code is grpc.StatusCode.UNIMPLEMENTED:
            self._unsupported()
        # Nothing was sent yet: whatever the stream died of, the calls have not begun.
        alone = not self._heard.is_set() and code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
        pendings, self._pending = self._pending, {}
        for pending in pendings.values():
            if pending.done():
                continue
            if code is None:
                pending.cancel()
            elif alone:
                self._call_alone(pending)
            else:
                pending.fail(grpc.StatusCode.UNAVAILABLE if code in _LOST else code, details, trailing)

    def _call_alone(self, pending: _Pending) -> None:
        """Makes a call by itself that cannot be made here."""
        left = None
        if pending.timer is not None:
            left = max(0.0, pending.timer.when() - self._loop.time())
            pending.timer.cancel()
        call = asyncio.ensure_future(
            _awaited(pending.method.alone(pending.request, timeout=left, metadata=tuple(pending.metadata) or None))
        )

        def ended(call: asyncio.Future[Any]) -> None:
            if pending.done():
                return
            if call.cancelled():
                pending.cancel()
            elif (error := call.exception()) is not None:
                pending.set_exception(error)
            else:
                pending.set_result(call.result())

        call.add_done_callback(ended)
        pending.add_done_callback(lambda _: call.cancel())


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
