"""A channel whose every call carries a token.

Not gRPC's call credentials: those run in a thread of their own for every call and refuse plain text also on loopback.
Not interceptors: they run every call in one task more.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from vitrine.credentials import AUTHORIZATION


class BearerChannel(grpc.aio.Channel):
    """A channel that adds `authorization` to the metadata of every call and is otherwise the one it is made of."""

    def __init__(self, channel: grpc.aio.Channel, bearer: Callable[[], str]) -> None:
        """`bearer` gives the value for each call."""
        self._channel = channel
        self._bearer = bearer

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self._with_token(self._channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self._with_token(self._channel.unary_stream(*arguments, **options))

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self._with_token(self._channel.stream_unary(*arguments, **options))

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self._with_token(self._channel.stream_stream(*arguments, **options))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As `grpc.aio.Channel`."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As `grpc.aio.Channel`."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As `grpc.aio.Channel`."""
        await self._channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """As `grpc.aio.Channel`."""
        await self._channel.close(grace)

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.__aexit__(kind, error, trace)

    def _with_token(self, method: Any) -> Any:
        def call(*arguments: Any, metadata: Any = None, **options: Any) -> Any:
            return method(*arguments, metadata=(*(metadata or ()), (AUTHORIZATION, self._bearer())), **options)

        return call
