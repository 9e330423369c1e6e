"""What surrounds every request: its id, who sends it, admission, errors as problems, headers, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from services.gateway import metrics
from services.gateway.http.call import Call
from services.gateway.http.headers import dress
from services.gateway.http.identity import identify
from services.gateway.http.problems import CLIENT_CLOSED_REQUEST, problem_response
from services.runtime.guard import Guard
from services.runtime.interceptor import InFlight, request_id
from services.runtime.tracing import ServerSpan, serve_request
from vitrine.passing import current_request_id

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SPAN = "vitrine.span"
"""Where a request's scope keeps its span."""

_SEND_SECONDS = 60.0
"""For one piece of an answer to be taken by who asked for it."""


class Endpoint:
    """One operation of the API as an ASGI application: let in or refused as calls over gRPC are."""

    def __init__(
        self,
        handler: Callable[[Call], Awaitable[Response]],
        rpc: str,
        guard: Guard,
        in_flight: InFlight,
        longest: float,
    ) -> None:
        """`rpc`: what it stands for over gRPC; `longest`: seconds granted to a request that asks for no less."""
        self._handler = handler
        self._rpc = rpc
        self._guard = guard
        self._in_flight = in_flight
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = Request(scope, receive)
        route, named = scope["route"].path, current_request_id.get()
        scope[_SPAN] = serve_request(request.method, route, request.headers, named)
        asker = identify(request, self._guard, self._rpc)
        self._in_flight.enter()
        try:
            response = await self._handler(Call(request, asker, self._longest))
        finally:
            self._in_flight.leave()
        await response(scope, receive, send)


class Envelope:
    """The whole HTTP application: a router, and around it what every request gets."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        began = time.perf_counter()
        named = request_id({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})
        current_request_id.set(named)  # uvicorn runs every request in a task of its own
        scope["app"] = self  # makes the router raise what it would else answer by itself
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = dress(message["headers"], named)
            async with asyncio.timeout(_SEND_SECONDS):
                await send(message)

        try:
            await self._answer(scope, receive, send_dressed, lambda: status != 0)
        finally:
            route = scope.get("route")
            labels = route.path if isinstance(route, Route) else "none"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.HTTP_REQUESTS.labels(labels, method, str(status or CLIENT_CLOSED_REQUEST)).inc()
            span: ServerSpan | None = scope.get(_SPAN)
            trace = span.exemplar if span is not None else None
            metrics.HTTP_SECONDS.labels(labels).observe(time.perf_counter() - began, trace)
            if span is not None:
                span.end_http(status or CLIENT_CLOSED_REQUEST)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, has_begun: Callable[[], bool]) -> None:
        try:
            await self._router(scope, receive, send)
        except Exception as error:  # what is not known becomes a 500 that is logged
            if has_begun():
                return  # it was not taken: uvicorn ends the connection
            await problem_response(error)(scope, receive, send)
