"""Where the shared Redis is, without ever saying its password."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url

RedisConnection = Connection | UnixDomainSocketConnection


class RedisAddress:
    """A checked `redis://`, `rediss://` or `unix://` URL."""

    def __init__(self, url: SecretStr) -> None:
        """Checks everything that can be checked without connecting.

        Raises:
            ValueError: The URL cannot be used. The message does not quote it: any part may be part of a password.
        """
        self._url = url
        try:
            made = self.connection()
        except Exception:  # what the parser and the connection class say would quote parts of the URL
            raise ValueError(
                "must be like redis://user:password@host:6379/0 or, with TLS, rediss://...?ssl_ca_certs=/path, or "
                "unix:///path; special characters of a password are percent-encoded, options after ? are those of a "
                "redis-py connection"
            ) from None
        if isinstance(made, SSLConnection):
            try:
                made.ssl_context.get()
            except Exception:  # names the file, and what it names may be anything here
                raise ValueError("the certificates or keys that its ssl_... options name cannot be read") from None
        if isinstance(made, UnixDomainSocketConnection):
            self.name = made.path
        else:
            assert isinstance(made, Connection)
            self.name = f"{made.host}:{made.port}"
        """For logs: the server, without user and password."""

    def connection(self) -> RedisConnection:
        """Makes a connection that is not connected yet, sends one greeting at most, and never retries by itself."""
        options: dict[str, Any] = {**parse_url(self._url.get_secret_value())}
        kind = options.pop("connection_class", Connection)
        # Time limits are the caller's: these would need a second task, or a second timer, for each reply.
        ours = {"protocol": 2, "driver_info": None, "socket_timeout": None, "socket_connect_timeout": None}
        made: RedisConnection = kind(**{**ours, **options})
        return made
