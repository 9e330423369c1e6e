"""Unary calls that come many on one stream: each is served as one that comes by an RPC of its own.

In Python an RPC costs its two sides several times what a message on a stream costs (docs/decisions/0027).
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, cast

import grpc
from google.rpc import status_pb2

from services.runtime.interceptor import Context, InFlight, Method, ServiceInterceptor, standing
from services.runtime.settings import ServiceSettings
from vitrine.errors import InvalidArgumentError, UnimplementedError, VitrineError, to_status
from vitrine.multiplex import MAX_CALL_BYTES, MAX_MESSAGE_BYTES
from vitrine.v1 import multiplex_pb2, multiplex_pb2_grpc

MULTIPLEX_SERVICE: Final = "vitrine.v1.Multiplex"

_STATUS_DETAILS = "grpc-status-details-bin"
# A client that was asked to leave does so at once; one that does not is cut off.
_LEAVE_SECONDS = 5.0


def register_multiplex(
    server: grpc.aio.Server,
    interceptor: ServiceInterceptor,
    in_flight: InFlight,
    draining: asyncio.Event,
    settings: ServiceSettings,
) -> None:
    """Lets a server take the unary calls of all its services on streams too."""
    servicer = MultiplexServicer(interceptor, in_flight, draining, settings)
    multiplex_pb2_grpc.add_MultiplexServicer_to_server(servicer, server)


class MultiplexServicer(multiplex_pb2_grpc.MultiplexServicer):
    """Answers what `multiplex.proto` promises."""

    def __init__(
        self, interceptor: ServiceInterceptor, in_flight: InFlight, draining: asyncio.Event, settings: ServiceSettings
    ) -> None:
        self._interceptor = interceptor
        self._in_flight = in_flight
        self._draining = draining
        self._most = settings.max_streams_per_connection
        self._age = settings.max_connection_age_seconds or math.inf

    @standing
    async def Exchange(
        self, request_iterator: AsyncIterator[multiplex_pb2.ExchangeRequest], context: Context
    ) -> AsyncIterator[multiplex_pb2.ExchangeResponse]:
        """Serves the calls that come on one stream."""
        exchange = _Exchange(self._interceptor, context, self._most)
        retiring = asyncio.create_task(self._retire(exchange))
        with self._in_flight.hold():
            try:
                async for response in exchange.run(request_iterator):
                    yield response
            finally:
                retiring.cancel()

    async def _retire(self, exchange: _Exchange) -> None:
        """Asks the client to leave when the server drains, or the stream is as old as a connection gets."""
        waiting = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait((waiting,), timeout=None if math.isinf(self._age) else self._age)
        finally:
            waiting.cancel()
        exchange.say_goodbye()
        await asyncio.sleep(_LEAVE_SECONDS)
        exchange.stop_reading()


class _Exchange:
    """One stream of calls."""

    def __init__(self, interceptor: ServiceInterceptor, context: Context, most: int) -> None:
        """At most `most` calls are under way or wait for their answers to be sent; then no more are read."""
        self._interceptor = interceptor
        self._context = context
        self._most = most
        self._answers: deque[multiplex_pb2.Answer] = deque()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._goodbye = False

    async def run(
        self, requests: AsyncIterator[multiplex_pb2.ExchangeRequest]
    ) -> AsyncIterator[multiplex_pb2.ExchangeResponse]:
        """Answers until no more calls come and all are answered."""
        reader = self._reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                while response := self._next():
                    yield response
                    self._room.set()
                if reader.done() and not self._running:
                    break
                self._news.clear()
                await self._news.wait()
            if not reader.cancelled():
                reader.result()
        finally:
            reader.cancel()
            for task in self._running.values():
                task.cancel()

    def say_goodbye(self) -> None:
        """Tells the client to make its further calls elsewhere."""
        self._goodbye = True
        self._news.set()

    def stop_reading(self) -> None:
        """Takes no more calls; those that have come are answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, requests: AsyncIterator[multiplex_pb2.ExchangeRequest]) -> None:
        async for request in requests:
            for number in request.cancelled:
                if task := self._running.get(number):
                    task.cancel()
            for call in request.calls:
                while len(self._running) + len(self._answers) >= self._most:
                    self._room.clear()
                    await self._room.wait()
                self._begin(call)

    def _begin(self, call: multiplex_pb2.Call) -> None:
        if call.id in self._running:
            raise InvalidArgumentError(f"calls.id: {call.id} is under way already", field="calls.id")
        # Nothing of the stream's own context: who calls, for which request, is each call's own.
        task = asyncio.Task(self._serve(call), context=contextvars.Context())
        self._running[call.id] = task

    async def _serve(self, call: multiplex_pb2.Call) -> None:
        deadline = time.monotonic() + call.timeout_seconds if call.timeout_seconds > 0 else None
        timer = None
        if deadline is not None and (task := asyncio.current_task()) is not None:
            # As gRPC does where a call is an RPC: there is nobody left to answer.
            timer = asyncio.get_running_loop().call_later(call.timeout_seconds, task.cancel)
        try:
            self._answers.append(await self._answer(call, deadline))
        except asyncio.CancelledError:
            pass  # counted as such where it was served
        finally:
            if timer is not None:
                timer.cancel()
            del self._running[call.id]
            self._room.set()
            self._news.set()

    async def _answer(self, call: multiplex_pb2.Call, deadline: float | None) -> multiplex_pb2.Answer:
        try:
            method = self._method(call)
        except VitrineError as error:
            return multiplex_pb2.Answer(id=call.id, status=to_status(error))
        context = _CallContext(self._context, [(each.key, each.value) for each in call.metadata], deadline)
        response = await method.unary(method.decode(call.request), cast("Context", context))
        if context.status is not None:
            return multiplex_pb2.Answer(id=call.id, status=context.status)
        content = method.encode(response)
        if len(content) > MAX_MESSAGE_BYTES:
            return multiplex_pb2.Answer(id=call.id, too_large=True)
        return multiplex_pb2.Answer(id=call.id, response=content)

    def _method(self, call: multiplex_pb2.Call) -> Method:
        """Returns what a call asks for.

        Raises:
            UnimplementedError: There is no such unary method.
            InvalidArgumentError: The request is too large to come with others.
        """
        method = self._interceptor.method(call.method)
        if method is None or method.unary is None:
            raise UnimplementedError(f"calls.method: no unary method {call.method[:120]!r}", field="calls.method")
        if len(call.request) > MAX_CALL_BYTES:
            raise InvalidArgumentError(
                f"calls.request has {len(call.request)} bytes, at most {MAX_CALL_BYTES}; make the call by itself",
                field="calls.request",
            )
        return method

    def _next(self) -> multiplex_pb2.ExchangeResponse | None:
        """Returns what can be sent now; None: nothing."""
        if not self._answers and not self._goodbye:
            return None
        response = multiplex_pb2.ExchangeResponse(going_away=self._goodbye)
        self._goodbye = False
        size = 0
        while self._answers and size < MAX_MESSAGE_BYTES:
            answer = self._answers.popleft()
            size += len(answer.response)
            response.answers.append(answer)
        return response


class _CallContext:
    """What the methods of a service ask of a call's context, for a call that has no RPC of its own."""

    __slots__ = ("_code", "_deadline", "_metadata", "_stream", "status")

    def __init__(self, stream: Context, metadata: Sequence[tuple[str, str]], deadline: float | None) -> None:
        """`deadline` is of `time.monotonic`."""
        self._stream = stream
        self._metadata = metadata
        self._deadline = deadline
        self._code: grpc.StatusCode | None = None
        self.status: status_pb2.Status | None = None
        """What the call failed with; None: it did not."""

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """As `grpc.aio.ServicerContext`."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """As `grpc.aio.ServicerContext`."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def auth_context(self) -> Any:
        """As `grpc.aio.ServicerContext`: the connection's."""
        return self._stream.auth_context()

    def peer(self) -> str:
        """As `grpc.aio.ServicerContext`."""
        return self._stream.peer()

    def code(self) -> grpc.StatusCode | None:
        """As `grpc.aio.ServicerContext`."""
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        """As `grpc.aio.ServicerContext`."""
        self._code = code
        self.status = status_pb2.Status(code=code.value[0])

    def set_details(self, details: str) -> None:
        """As `grpc.aio.ServicerContext`, after `set_code`."""
        if self.status is not None:
            self.status.message = details

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """As `grpc.aio.ServicerContext`: a status with details is what the call failed with."""
        for key, value in metadata:
            if key == _STATUS_DETAILS and isinstance(value, bytes):
                self.status = status_pb2.Status.FromString(value)
