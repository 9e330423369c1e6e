"""One stream of calls, from its first to its last answer."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any, cast

import grpc
import structlog

from services.runtime.interceptor import Context, Method, ServiceInterceptor
from services.runtime.multiplex.call_context import CallContext
from vitrine.errors import InternalError, InvalidArgumentError, UnimplementedError, VitrineError, to_status
from vitrine.multiplex.limits import MAX_ANSWER_BYTES, MAX_CALL_BYTES, MESSAGE_BYTES
from vitrine.v1 import multiplex_pb2

log = structlog.get_logger()

_LONGEST_SECONDS = 86_400.0


class CallStream:
    """One stream of calls."""

    def __init__(self, interceptor: ServiceInterceptor, context: Context, most: int) -> None:
        """At most `most` calls are under way or wait for their answers to be sent; then no more are read."""
        self._interceptor = interceptor
        self._context = context
        self._most = most
        self._answers: deque[multiplex_pb2.Answer] = deque()
        self._running: dict[int, asyncio.Task[multiplex_pb2.Answer]] = {}
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
        """Serves a call in a task of its own.

        Raises:
            InvalidArgumentError: Its id is that of another one.
        """
        if call.id in self._running:
            raise InvalidArgumentError(f"calls.id: {call.id} is under way already", field="calls.id")
        seconds = min(call.timeout_seconds, _LONGEST_SECONDS) if call.timeout_seconds > 0 else None
        context = CallContext(self._context, [(each.key, each.value) for each in call.metadata], seconds)
        # Nothing of the stream's own context: who calls, for which request, is each call's own.
        task = asyncio.Task(self._serve(call, context), context=contextvars.Context())
        self._running[call.id] = task
        timer = None
        if seconds is not None:
            # As gRPC does where a call is an RPC: there is nobody left to answer.
            timer = asyncio.get_running_loop().call_later(seconds, _expire, context, task)
        task.add_done_callback(partial(self._ended, call.id, timer))

    def _ended(self, number: int, timer: asyncio.TimerHandle | None, task: asyncio.Task[multiplex_pb2.Answer]) -> None:
        if timer is not None:
            timer.cancel()
        del self._running[number]
        if not task.cancelled():
            self._answers.append(task.result())
        self._room.set()
        self._news.set()

    async def _serve(self, call: multiplex_pb2.Call, context: CallContext) -> multiplex_pb2.Answer:
        try:
            method, request = self._asked(call)
            with suppress(grpc.aio.AbortError):  # its status is the context's
                response = await method.unary(request, cast("Context", context))
            if context.status is not None:
                return _failed(call, context)
            content = method.encode(response)
        except VitrineError as error:
            return multiplex_pb2.Answer(id=call.id, status=to_status(error))
        except Exception:  # a defect must not leave its caller without an answer
            log.exception("call failed", method=call.method[:120])
            return multiplex_pb2.Answer(id=call.id, status=to_status(InternalError("internal error")))
        if len(content) > MAX_ANSWER_BYTES:
            return multiplex_pb2.Answer(id=call.id, too_large=True)
        return multiplex_pb2.Answer(id=call.id, response=content)

    def _asked(self, call: multiplex_pb2.Call) -> tuple[Method, Any]:
        """Returns what a call asks for, and its request.

        Raises:
            UnimplementedError: There is no such unary method.
            InvalidArgumentError: The request is too large to come with others.
        """
        method = self._interceptor.method(call.method)
        if method is None or method.unary is None:
            raise UnimplementedError(f"calls.method: no unary method {call.method[:120]!r}", field="calls.method")
        content = call.request  # every look at a field of bytes copies it
        if len(content) > MAX_CALL_BYTES:
            raise InvalidArgumentError(
                f"calls.request has {len(content)} bytes, at most {MAX_CALL_BYTES}; make the call by itself",
                field="calls.request",
            )
        return method, method.decode(content)

    def _next(self) -> multiplex_pb2.ExchangeResponse | None:
        """Returns what can be sent now; None: nothing."""
        if not self._answers and not self._goodbye:
            return None
        response = multiplex_pb2.ExchangeResponse(going_away=self._goodbye)
        self._goodbye = False
        size = 0
        while self._answers and size < MESSAGE_BYTES:
            answer = self._answers.popleft()
            size += len(answer.response)
            response.answers.append(answer)
        return response


def _failed(call: multiplex_pb2.Call, context: CallContext) -> multiplex_pb2.Answer:
    said = [multiplex_pb2.Header(key=key, value=value) for key, value in context.trailing_metadata]
    return multiplex_pb2.Answer(id=call.id, status=context.status, trailing_metadata=said)


def _expire(context: CallContext, task: asyncio.Task[multiplex_pb2.Answer]) -> None:
    context.expire()
    task.cancel()
