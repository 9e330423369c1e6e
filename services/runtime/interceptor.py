"""What surrounds every call: request id, caller, deadline, admission, error mapping, metrics."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status

from services.runtime import metrics
from vitrine.callers import CLIENT_HEADER, set_caller
from vitrine.errors import DeadlineError, InternalError, OverloadedError, VitrineError, to_status

REQUEST_ID = "x-request-id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_RETRY_AFTER_SECONDS = 0.1

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]


class InFlight:
    """Counts the calls being served, refuses more than `limit`, and tells when none is left."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Counts one more call.

        Raises:
            OverloadedError: `limit` calls are in flight.
        """
        if self._count >= self._limit:
            metrics.SHED.labels("max_concurrent_rpcs").inc()
            raise OverloadedError(
                f"max_concurrent_rpcs: {self._limit} calls are in flight", retry_after=_RETRY_AFTER_SECONDS
            )
        self._count += 1
        self._idle.clear()
        metrics.IN_FLIGHT.set(self._count)

    def leave(self) -> None:
        """Counts one call less."""
        self._count -= 1
        metrics.IN_FLIGHT.set(self._count)
        if self._count == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Returns once no call is in flight."""
        await self._idle.wait()


class ServiceInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of the `vitrine.` packages; health and reflection pass untouched, also under overload.

    Streaming methods must be async generators.
    """

    def __init__(self, in_flight: InFlight, default_deadline_seconds: float) -> None:
        self._in_flight = in_flight
        self._deadline = default_deadline_seconds
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler, wrapped."""
        method = handler_call_details.method
        if wrapped := self._wrapped.get(method):
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith("/vitrine."):
            return handler
        wrapped = self._wrapped[method] = _Wrapped(handler, method, self._in_flight, self._deadline).handler()
        return wrapped


class _Wrapped:
    """One method handler with everything around it."""

    def __init__(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str, in_flight: InFlight, deadline: float
    ) -> None:
        self._inner = handler
        self._in_flight = in_flight
        self._deadline = deadline
        self._method = method
        service, _, name = method.removeprefix("/").partition("/")
        kind = {
            (False, False): "unary",
            (True, False): "client_stream",
            (False, True): "server_stream",
            (True, True): "bidi_stream",
        }[handler.request_streaming, handler.response_streaming]
        self._labels = (kind, service, name)
        self._started = metrics.STARTED.labels(*self._labels)
        self._seconds = metrics.SECONDS.labels(*self._labels)
        self._sent = metrics.SENT.labels(*self._labels)
        self._received = metrics.RECEIVED.labels(*self._labels)

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        inner = self._inner
        codec = {
            "request_deserializer": inner.request_deserializer,
            "response_serializer": inner.response_serializer,
        }
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(inner.stream_stream), **codec)
        if inner.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(inner.stream_unary), **codec)
        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(inner.unary_stream), **codec)
        return grpc.unary_unary_rpc_method_handler(self._unary(inner.unary_unary), **codec)

    def _unary(self, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._surround(context):
                try:
                    async with asyncio.timeout(self._deadline):
                        response = await behaviour(self._count(request), context)
                except TimeoutError:
                    raise DeadlineError(f"not done within {self._deadline:g} s") from None
                self._sent.inc()
                return response

        return call

    def _streaming(self, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._surround(context):
                async for response in behaviour(self._count(request), context):
                    self._sent.inc()
                    yield response

        return call

    def _count(self, request: Any) -> Any:
        if not self._inner.request_streaming:
            self._received.inc()
            return request

        async def counted() -> AsyncIterator[Any]:
            async for message in request:
                self._received.inc()
                yield message

        return counted()

    @asynccontextmanager
    async def _surround(self, context: Context) -> AsyncIterator[None]:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        request_id = _request_id(metadata)
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        self._started.inc()
        entered = False
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                set_caller(metadata.get(CLIENT_HEADER, ""))
                self._in_flight.enter()
                entered = True
                yield
            except VitrineError as error:
                code = error.code
                if isinstance(error, InternalError):
                    log.error("call failed", method=self._method, error=error.message)
                await _abort(context, error, request_id)
            except (asyncio.CancelledError, GeneratorExit):
                remaining = context.time_remaining()
                late = remaining is not None and remaining <= 0
                code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.AbortError:
                code = context.code() or grpc.StatusCode.UNKNOWN
                raise
            except Exception:
                code = grpc.StatusCode.INTERNAL
                log.exception("call failed", method=self._method)
                await _abort(context, InternalError(f"internal error; request id {request_id}"), request_id)
            finally:
                if entered:
                    self._in_flight.leave()
                metrics.HANDLED.labels(*self._labels, code.name).inc()
                self._seconds.observe(time.perf_counter() - started)


async def _abort(context: Context, error: VitrineError, request_id: str) -> None:
    status = rpc_status.to_status(to_status(error))
    trailing = [*(status.trailing_metadata or ()), (REQUEST_ID, request_id)]
    try:
        await context.abort(status.code, status.details or "", tuple(trailing))
    except grpc.aio.InternalError:
        # The call ended while its answer was on the way: nobody is there to be told, and gRPC would log a defect.
        raise asyncio.CancelledError from None


def _request_id(metadata: Mapping[str, str]) -> str:
    given = metadata.get(REQUEST_ID, "")
    return given if _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
