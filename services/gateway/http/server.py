"""uvicorn inside the gateway's process, on its event loop: started, drained and stopped with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator

import structlog
import uvicorn
from starlette.types import ASGIApp

from services.gateway.http.protocol import BoundedProtocol
from services.runtime.server import Lifecycle, StartError

_KEEP_ALIVE_SECONDS = 30
_BACKLOG = 512
_LAST_BYTES_SECONDS = 2

log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leaves signals to the process's own runtime."""
        yield


class HttpServer:
    """Serves an ASGI application until the process drains."""

    def __init__(
        self, app: ASGIApp, host: str, port: int, max_connections: int, context: ssl.SSLContext | None
    ) -> None:
        """Binds the port; with `context` it speaks TLS.

        Raises:
            StartError: It is taken.
        """
        self._socket = _bind(host, port)
        self._address = f"{host}:{port}"
        self._server = _Server(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                limit_concurrency=max_connections,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
                ssl_context_factory=(lambda *_: context) if context is not None else None,
            )
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, lifecycle: Lifecycle) -> None:
        """Begins to serve; requests in flight are the lifecycle's to wait for."""
        self._tasks = [
            asyncio.create_task(self._server.serve([self._socket])),
            asyncio.create_task(self._refuse_when(lifecycle.draining)),
        ]
        log.info("serving http", address=self._address)

    async def stop(self) -> None:
        """Ends every connection; answers being sent have a moment to leave."""
        self._server.should_exit = True
        if self._tasks:
            serving, refusing = self._tasks
            refusing.cancel()
            await asyncio.gather(serving, refusing, return_exceptions=True)
        self._socket.close()

    async def _refuse_when(self, draining: asyncio.Event) -> None:
        """Closes the port and idle connections once the process drains; others end with their answer."""
        await draining.wait()
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {host}:{port} (http_port): {error.strerror or error}") from None
    return listener
