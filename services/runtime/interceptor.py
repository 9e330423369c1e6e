"""What surrounds every call: request id, caller, deadline, admission, error mapping, metrics."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from services.runtime import metrics
from services.runtime.guard import Guard
from services.runtime.identities import Identity
from services.runtime.permissions import RULES
from services.runtime.tracing import ServerSpan, serve_call
from vitrine.callers import CLIENT_HEADER, set_caller
from vitrine.credentials import AUTHORIZATION
from vitrine.errors import (
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    VitrineError,
    to_status,
)
from vitrine.passing import REQUEST_ID, current_request_id
from vitrine.tracing import leave_stages_out

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_RETRY_AFTER_SECONDS = 0.1

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]

_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])
_Stream = TypeVar("_Stream", bound=Callable[..., AsyncIterator[Any]])
_LONG_SECONDS = 3_600.0
_OURS = "/vitrine."
_MALFORMED = object()
"""In place of a message that cannot be read."""


class InFlight:
    """Counts the calls being served, refuses more than `limit`, and tells when none is left."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._held = 0
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.IN_FLIGHT.set_function(lambda: self._count)
        metrics.IN_FLIGHT_LIMIT.set(limit)

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

    def leave(self) -> None:
        """Counts one call less."""
        self._count -= 1
        self._look()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Is not idle meanwhile: calls may come that are not known yet."""
        self._held += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._held -= 1
            self._look()

    async def wait_idle(self) -> None:
        """Returns once no call is in flight, and none can be on its way."""
        await self._idle.wait()

    def _look(self) -> None:
        if self._count == 0 and self._held == 0:
            self._idle.set()


class ServiceInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of the `vitrine.` packages; health and reflection pass untouched, also under overload.

    Streaming methods must be async generators.
    """

    def __init__(self, in_flight: InFlight, default_deadline_seconds: float, guard: Guard | None = None) -> None:
        """`guard` None: everyone may do everything."""
        self._in_flight = in_flight
        self._deadline = default_deadline_seconds
        self._guard = guard or Guard()
        self._methods: dict[str, Method] = {}
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def learn(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Takes the handlers of a service that is registered, for `method`."""
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def method(self, name: str) -> Method | None:
        """Returns `/package.Service/Method`, for calls that come otherwise than by RPCs of their own; None: no such."""
        if (method := self._methods.get(name)) is None and name.startswith(_OURS) and name in self._handlers:
            method = self._wrap(name, self._handlers[name])
        return method

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler, wrapped."""
        name = handler_call_details.method
        if method := self._methods.get(name):
            return method.handler
        handler = await continuation(handler_call_details)
        if handler is None or not name.startswith(_OURS):
            return handler
        return self._wrap(name, handler).handler

    def _wrap(self, name: str, handler: grpc.RpcMethodHandler[Any, Any]) -> Method:
        method = self._methods[name] = Method(handler, name, self._in_flight, self._deadline, self._guard)
        return method


def long_running(method: _Method) -> _Method:
    """Marks a servicer's unary method as work that takes as long as its caller allows; an hour by default."""
    method.__dict__["long_running"] = True
    return method


def standing(method: _Stream) -> _Stream:
    """Marks a servicer's streaming method that is no work itself: it has no place among the calls in flight."""
    method.__dict__["standing"] = True
    return method


class Method:
    """One method handler with everything around it."""

    def __init__(
        self,
        handler: grpc.RpcMethodHandler[Any, Any],
        method: str,
        in_flight: InFlight,
        deadline: float,
        guard: Guard,
    ) -> None:
        self._inner = handler
        self._deadline = deadline
        self.in_flight = in_flight
        self.guard = guard
        self.rule = RULES[method]
        self.name = method
        service, _, name = method.removeprefix("/").partition("/")
        kind = {
            (False, False): "unary",
            (True, False): "client_stream",
            (False, True): "server_stream",
            (True, True): "bidi_stream",
        }[handler.request_streaming, handler.response_streaming]
        labels = (kind, service, name)
        self.started = metrics.STARTED.labels(*labels)
        self.seconds = metrics.SECONDS.labels(*labels)
        self._sent = metrics.SENT.labels(*labels)
        self._received = metrics.RECEIVED.labels(*labels)
        self.handled = {code: metrics.HANDLED.labels(*labels, code.name) for code in grpc.StatusCode}
        self.unary: Any = None
        """Serves one call as an RPC does; what fails sets the context's status and returns None. None: a stream."""
        if not handler.request_streaming and not handler.response_streaming:
            self.unary = self._unary(handler.unary_unary)
        self.decode = _forgiving(handler.request_deserializer or bytes)
        self.encode = handler.response_serializer or bytes
        self.handler = self._handler()

    def _handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        inner = self._inner
        codec = {"request_deserializer": self.decode, "response_serializer": self.encode}
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(inner.stream_stream), **codec)
        if inner.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(inner.stream_unary), **codec)
        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(inner.unary_stream), **codec)
        return grpc.unary_unary_rpc_method_handler(self.unary, **codec)

    def _unary(self, behaviour: Any) -> Any:
        patient = getattr(behaviour, "long_running", False)

        async def call(request: Any, context: Context) -> Any:
            with _Call(self, context) as running:
                running.enter()
                longest = _LONG_SECONDS if patient else self._deadline
                remaining = context.time_remaining()
                work = behaviour(self._taken(request, running.identity), context)
                if remaining is not None and (patient or remaining <= longest):
                    response = await work  # gRPC itself cancels it in time
                else:
                    response = await _within(longest, work)
                self._sent.inc()
                if self.rule.prune is not None and running.identity is not None:
                    self.rule.prune(response, running.identity)
                return response

        return call

    def _streaming(self, behaviour: Any) -> Any:
        in_flight = not getattr(behaviour, "standing", False)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with _Call(self, context) as running:
                running.enter(in_flight=in_flight)
                leave_stages_out()
                async for response in behaviour(self._taken(request, running.identity), context):
                    self._sent.inc()
                    yield response

        return call

    def _taken(self, request: Any, identity: Identity | None) -> Any:
        """Counts what is received, and checks that its caller may ask for it."""
        if not self._inner.request_streaming:
            self._take(request, identity)
            return request

        async def taken() -> AsyncIterator[Any]:
            async for message in request:
                self._take(message, identity)
                yield message

        return taken()

    def _take(self, message: Any, identity: Identity | None) -> None:
        self._received.inc()
        if message is _MALFORMED:
            raise InvalidArgumentError(f"what was sent is no request of {self.name}")
        self.guard.check_request(identity, self.rule, message, self.name)


class _Call:
    """One call: counted, timed, named in the logs, and answered with the status of whatever it raised."""

    __slots__ = ("_context", "_entered", "_method", "_request_id", "_span", "_started", "identity")

    def __init__(self, method: Method, context: Context) -> None:
        self._method = method
        self._context = context
        self._entered = False
        self._span: ServerSpan | None = None
        self.identity: Identity | None = None

    def enter(self, *, in_flight: bool = True) -> None:
        """Admits it; among those in flight, unless it is not to count.

        Raises:
            UnauthenticatedError: The caller is not known.
            PermissionDeniedError: The caller may not make this call.
            OverloadedError: Too many calls are in flight.
            InvalidArgumentError: The caller's name is none.
        """
        given = self._context.invocation_metadata() or ()
        metadata = {key: value for key, value in given if isinstance(value, str)}
        self._request_id = request_id(metadata)
        # gRPC runs every call in a task of its own, so that none of these is seen by another.
        current_request_id.set(self._request_id)
        self._span = serve_call(self._method.name, metadata, self._request_id)
        caller = metadata.get(CLIENT_HEADER, "")
        guard = self._method.guard
        if not guard.is_open:
            identity = guard.identify(
                [value for key, value in given if key == AUTHORIZATION and isinstance(value, str)],
                certificate_names(self._context) if guard.knows_certificates else (),
            )
            guard.check_scope(identity, self._method.rule.scope, self._method.name)
            self.identity = identity
            if identity is not None:
                caller = identity.caller(caller)
        set_caller(caller)
        if in_flight:
            self._method.in_flight.enter()
            self._entered = True

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._method.started.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        code = grpc.StatusCode.OK if error is None else grpc.StatusCode.UNKNOWN
        try:
            if error is not None:
                code = self._answer(error)
        finally:
            if self._entered:
                self._method.in_flight.leave()
            self._method.handled[code].inc()
            span, seconds = self._span, time.perf_counter() - self._started
            self._method.seconds.observe(seconds, span.exemplar if span else None)
            log.debug("call", method=self._method.name, code=code.name, seconds=round(seconds, 6))
            if span is not None:
                span.end(code)
        return isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError)

    def _answer(self, error: BaseException) -> grpc.StatusCode:
        """Makes the call end with what the error stands for; returns the code that it ends with."""
        if isinstance(error, VitrineError):
            if isinstance(error, InternalError):
                log.error("call failed", method=self._method.name, error=error.message)
            if error.remote and isinstance(error, UnauthenticatedError | PermissionDeniedError):
                # A service behind this one does not let it in: nothing that this service's caller can mend.
                log.error("refused by another service", method=self._method.name, error=error.message)
                error = UnavailableError(f"this service was refused by one that it needs: {error.message}")
            self._set_status(error)
            return error.code
        if isinstance(error, grpc.aio.AbortError):
            return self._context.code() or grpc.StatusCode.UNKNOWN
        if isinstance(error, Exception):
            log.exception("call failed", method=self._method.name)
            self._set_status(InternalError(f"internal error; request id {self._request_id}"))
            return grpc.StatusCode.INTERNAL
        remaining = self._context.time_remaining()
        late = remaining is not None and remaining <= 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED

    def _set_status(self, error: VitrineError) -> None:
        # Not `context.abort`: its exception is kept in a cycle with every frame it passed, and with them the request's
        # images, until the garbage collector comes by.
        status = rpc_status.to_status(to_status(error))
        self._context.set_code(status.code)
        self._context.set_details(status.details or "")
        self._context.set_trailing_metadata((*(status.trailing_metadata or ()), (REQUEST_ID, self._request_id)))


def _forgiving(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns a deserializer that does not raise: gRPC takes what does for a defect of the service."""

    def deserialize(content: bytes) -> Any:
        try:
            return deserializer(content)
        except DecodeError:
            return _MALFORMED

    return deserialize


async def _within(seconds: float, work: Awaitable[Any]) -> Any:
    """Returns what the work returns.

    Raises:
        DeadlineError: It takes longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise DeadlineError(f"not done within {seconds:g} s") from None


def certificate_names(context: Context) -> tuple[str, ...]:
    """Returns the names in the caller's verified certificate: alternative ones (DNS, URI) and the common one."""
    properties = context.auth_context()
    return tuple(
        name.decode("utf-8", "replace")
        for kind in ("x509_subject_alternative_name", "x509_common_name")
        for name in properties.get(kind, ())
    )


def request_id(metadata: Mapping[str, str]) -> str:
    """Returns the id that a caller gave its request where it is a sane one, else a new one."""
    given = metadata.get(REQUEST_ID, "")
    return given if _SANE_REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
