"""A channel around a channel, for what every call needs more.

Not interceptors: they run every call in one task more.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc


class WrappingChannel(grpc.aio.Channel):
    """A channel whose methods are wrapped, and which is otherwise the one it is made of."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @abstractmethod
    def wrap(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Returns what is called instead of `method`, which calls `/package.Service/Method`."""

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self.wrap(method, self._channel.unary_unary(method, *arguments, **options))

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self.wrap(method, self._channel.unary_stream(method, *arguments, **options))

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self.wrap(method, self._channel.stream_unary(method, *arguments, **options))

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As `grpc.aio.Channel`."""
        return self.wrap(method, self._channel.stream_stream(method, *arguments, **options))

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
