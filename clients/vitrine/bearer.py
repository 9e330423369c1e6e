"""A channel whose every call carries a token.

Not gRPC's call credentials: those run in a thread of their own for every call and refuse plain text also on loopback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from vitrine.credentials import AUTHORIZATION
from vitrine.wrapping import WrappingChannel


class BearerChannel(WrappingChannel):
    """Adds `authorization` to the metadata of every call."""

    def __init__(self, channel: grpc.aio.Channel, bearer: Callable[[], str]) -> None:
        """`bearer` gives the value for each call."""
        super().__init__(channel)
        self._bearer = bearer

    def wrap(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """As `WrappingChannel`."""

        def call(*arguments: Any, metadata: Any = None, **options: Any) -> Any:
            return method(*arguments, metadata=(*(metadata or ()), (AUTHORIZATION, self._bearer())), **options)

        return call
