"""The Prometheus endpoint: GET /metrics, in threads of its own, so that a busy event loop can still be measured."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from services.runtime.guard import Guard
from services.runtime.identities import Scope
from vitrine.errors import PermissionDeniedError, UnauthenticatedError

_Environ: TypeAlias = dict[str, Any]
_StartResponse: TypeAlias = Callable[[str, list[tuple[str, str]]], Any]

_MAX_CONNECTIONS = 16
_TIMEOUT_SECONDS = 10.0


class MetricsServer:
    """Serves the metrics of this process until it is closed."""

    def __init__(self, host: str, port: int, guard: Guard, context: ssl.SSLContext | None) -> None:
        """Listens; with `context` over TLS. `guard` lets in those with the scope `metrics`.

        Raises:
            OSError: The port is taken.
        """
        self._server = _Server(host, port, context)
        self._server.set_app(_guarded(guard))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _guarded(guard: Guard) -> Any:
    metrics_app = make_wsgi_app()

    def app(environ: _Environ, start_response: _StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            return _answer(start_response, "404 Not Found", "only /metrics is here\n")
        given = environ.get("HTTP_AUTHORIZATION")
        try:
            identity = guard.identify([given] if given else [])
            guard.check_scope(identity, Scope.METRICS, "/metrics")
        except UnauthenticatedError as error:
            return _answer(
                start_response, "401 Unauthorized", error.message + "\n", ("WWW-Authenticate", 'Bearer realm="vitrine"')
            )
        except PermissionDeniedError as error:
            return _answer(start_response, "403 Forbidden", error.message + "\n")
        result: Iterable[bytes] = metrics_app(environ, start_response)
        return result

    return app


def _answer(start_response: _StartResponse, status: str, text: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [text.encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False  # a caller that hangs must not hold up the end of the process

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._context = context
        self._slots = threading.Semaphore(_MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(_TIMEOUT_SECONDS)
            if self._context is not None:
                # Here, not in the thread that accepts: a handshake takes as long as the caller likes.
                request = self._context.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError:  # it left, or is none of ours
            self.shutdown_request(request)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that breaks off is no news."""


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - as its base names it
        """Scrapes are no news."""
