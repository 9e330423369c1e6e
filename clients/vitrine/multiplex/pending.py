"""One call on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

Metadata: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: how it is called by itself, and how its messages are written and read."""

    path: str
    alone: Callable[..., Awaitable[Any]]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    retried: bool
    """It may be made twice, and nobody else does that."""


class Pending(asyncio.Future[Any]):
    """A call on a stream, as its caller awaits it."""

    def __init__(self, method: Method, request: Any, timeout: float | None, metadata: Metadata) -> None:
        """`timeout`: seconds from now."""
        super().__init__()
        self.method = method
        self.request = request
        self.metadata = metadata
        self.timeout = timeout
        self.timer: asyncio.TimerHandle | None = None
        """Ends it when its time has passed; kept by the stream it is on."""

    def fail(self, code: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, Any]] = ()) -> None:
        """Ends it as a failed RPC ends."""
        self.set_exception(
            grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=details)
        )

    def call_alone(self) -> None:
        """Makes the call by itself, in what is left of its time, and ends as that does."""
        left = self.timeout
        if self.timer is not None:
            left = max(0.0, self.timer.when() - self.get_loop().time())
            self.timer.cancel()
        call = asyncio.ensure_future(
            _awaited(self.method.alone(self.request, timeout=left, metadata=self.metadata or None))
        )
        call.add_done_callback(self._end_as)
        self.add_done_callback(lambda _: call.cancel())

    def _end_as(self, call: asyncio.Future[Any]) -> None:
        if self.done():
            return
        if call.cancelled():
            self.cancel()
        elif (error := call.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(call.result())


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
