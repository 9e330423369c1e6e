"""uvicorn's HTTP/1.1 protocol with what it leaves open: how large a request's head may be, and how long it may take."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway.http.headers import dress
from services.gateway.http.problems import problem_response
from services.runtime.interceptor import request_id
from vitrine.errors import InvalidArgumentError
from vitrine.passing import current_request_id

_MAX_HEAD_BYTES = 32 * 2**10
_MAX_HEAD_SECONDS = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose next request's head is too large or too slow."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._heads = 0
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A first request is awaited."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and counts what is not yet a whole head."""
        in_head, heads = self._in_head, self._heads
        if in_head and self._head_timer is None:
            self._watch()
        super().data_received(data)
        if in_head and self._heads == heads:  # no head was completed by this
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The head of a request may have {_MAX_HEAD_BYTES} bytes.")

    def send_400_response(self, msg: str) -> None:
        """Tells what is no HTTP, or not within limits, as every other problem is told; ends the connection."""
        current_request_id.set(request_id({}))
        response = problem_response(InvalidArgumentError(msg))
        headers = [*dress(response.raw_headers, current_request_id.get()), (b"connection", b"close")]
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(each) for each in headers), b"", bytes(response.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._heads += 1
        self._head_bytes = 0
        self._unwatch()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is there; another head may follow."""
        self._in_head = True
        super().on_message_complete()

    def _watch(self) -> None:
        self._head_timer = self.loop.call_later(_MAX_HEAD_SECONDS, self._too_slow)

    def _unwatch(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
