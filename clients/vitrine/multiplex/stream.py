"""One stream of calls to one server, from its opening to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import grpc
from grpc_status import rpc_status

from vitrine.multiplex.limits import MESSAGE_BYTES
from vitrine.multiplex.pending import Pending
from vitrine.v1 import multiplex_pb2

# How a stream ends that was lost; what a call itself fails with comes as its answer.
_LOST = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED})
# What a stream is refused with that says nothing of the calls, none of which was sent: INTERNAL is grpc.aio's own
# (1.85) for a stream that ends while it begins, and a caller without permission is better told what for.
_NOT_OF_THE_CALLS = frozenset(
    {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED}
)


class Owner(Protocol):
    """Is told what becomes of a stream."""

    def greeted(self, stream: CallStream) -> None:
        """The server takes calls, and has said which one it is."""

    def ended(self, stream: CallStream, code: grpc.StatusCode) -> None:
        """The stream has ended, or the server asks to leave it (OK)."""

    def gone(self, stream: CallStream) -> None:
        """Nothing is left of it."""

    def retries(self, pending: Pending) -> bool:
        """Tells whether a call that found no server is made again, and counts it if so."""


class CallStream:
    """Makes calls on a stream; see `multiplex.proto`."""

    def __init__(self, stream: Any, owner: Owner) -> None:
        """`stream`: a call of `Exchange` that has just been made."""
        self._stream = stream
        self._owner = owner
        self._numbers = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._calls: deque[multiplex_pb2.Call] = deque()
        self._cancelled: list[int] = []
        self._news = asyncio.Event()
        self._greeting = asyncio.Event()
        self.server = ""
        """Which process answers; empty: it has not said so yet."""
        self.takes_calls = True
        """Whether calls can be made on it: it has not ended, and nobody asked to leave it."""
        self._loop = asyncio.get_running_loop()
        # Held here: the loop itself holds tasks only weakly.
        self._writer = self._loop.create_task(self._write())
        self._reader = self._loop.create_task(self._read())
        self._reader.add_done_callback(lambda _: owner.gone(self))

    @property
    def under_way(self) -> int:
        """Calls that are not answered yet."""
        return len(self._pending)

    def send(self, pending: Pending, content: bytes) -> None:
        """Makes one call, with the others of this round of the loop; `content` is its request."""
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

    def leave(self) -> None:
        """Takes no more calls, and ends once all are answered."""
        self.takes_calls = False
        self._news.set()

    async def wait_ended(self) -> None:
        """Returns once it has ended, and nothing of it is left."""
        await asyncio.gather(self._writer, self._reader, return_exceptions=True)

    def _done(self, number: int, pending: asyncio.Future[Any]) -> None:
        if self._pending.pop(number, None) is not None and not self._writer.done():
            self._cancelled.append(number)  # before its answer: the caller left
            self._news.set()
        if isinstance(pending, Pending) and pending.timer is not None:
            pending.timer.cancel()

    def _late(self, number: int) -> None:
        if pending := self._pending.pop(number, None):
            pending.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    async def _write(self) -> None:
        """Sends what there is until the stream is left; one that ends by itself is the reader's business."""
        try:
            # A message to a stream that was refused hides from grpc.aio (1.85) what it was refused with.
            await self._greeting.wait()
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
        while self._calls and size < MESSAGE_BYTES:
            call = self._calls.popleft()
            if call.id in self._pending:
                size += call.ByteSize()
                request.calls.append(call)
        return request

    async def _read(self) -> None:
        code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
        details = "the stream of calls ended"
        trailing: Sequence[tuple[str, Any]] = ()
        try:
            while (response := await self._stream.read()) is not grpc.aio.EOF:
                self._take(response)
            if (ended := await self._stream.code()) is not grpc.StatusCode.OK:
                code, details = ended, await self._stream.details()
                trailing = tuple(await self._stream.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            code, details, trailing = error.code(), error.details() or "", tuple(error.trailing_metadata())
        except asyncio.CancelledError:
            code = None
        self._end(code, details, trailing)
        # Else its connection goes on trying to reach a server that is gone, until the garbage collector comes by.
        self._stream = None

    def _take(self, response: multiplex_pb2.ExchangeResponse) -> None:
        if not self._greeting.is_set():
            self.server = response.server
            self._greeting.set()
            self._owner.greeted(self)
        for answer in response.answers:
            if pending := self._pending.pop(answer.id, None):
                self._settle(pending, answer)
        if response.going_away and self.takes_calls:
            self.leave()
            self._owner.ended(self, grpc.StatusCode.OK)

    def _settle(self, pending: Pending, answer: multiplex_pb2.Answer) -> None:
        if pending.done():
            return
        match answer.WhichOneof("outcome"):
            case "response":
                try:
                    pending.set_result(pending.method.decode(answer.response))
                except Exception as error:  # as gRPC has it
                    pending.fail(grpc.StatusCode.INTERNAL, f"the response cannot be read: {error}")
            case "status":
                status = rpc_status.to_status(answer.status)
                if status.code is grpc.StatusCode.UNAVAILABLE and self._owner.retries(pending):
                    pending.call_alone()
                    return
                said = [(each.key, each.value) for each in answer.trailing_metadata]
                pending.fail(status.code, status.details or "", (*(status.trailing_metadata or ()), *said))
            case _:
                pending.call_alone()

    def _end(self, code: grpc.StatusCode | None, details: str, trailing: Sequence[tuple[str, Any]]) -> None:
        """Ends what is under way; code None: the channel was closed."""
        known = self.takes_calls
        self.takes_calls = False
        self._writer.cancel()
        unbegun = not self._greeting.is_set() and code in _NOT_OF_THE_CALLS
        if known and code is not None:
            self._owner.ended(self, code)
        if code in _LOST:
            code = grpc.StatusCode.UNAVAILABLE
        pendings, self._pending = self._pending, {}
        for pending in pendings.values():
            if pending.done():
                continue
            if code is None:
                pending.cancel()
            elif unbegun or (code is grpc.StatusCode.UNAVAILABLE and self._owner.retries(pending)):
                pending.call_alone()
            else:
                pending.fail(code, details, trailing)
