"""The context of a call that has no RPC of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from google.rpc import status_pb2

from services.runtime.interceptor import Context

_STATUS_DETAILS = "grpc-status-details-bin"


class CallContext:
    """What the methods of a service ask of a call's context, for a call that has no RPC of its own."""

    __slots__ = ("_code", "_deadline", "_metadata", "_stream", "status", "trailing_metadata")

    def __init__(self, stream: Context, metadata: Sequence[tuple[str, str]], seconds: float | None) -> None:
        """`seconds` may pass until nobody waits for the answer; None: any."""
        self._stream = stream
        self._metadata = metadata
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._code: grpc.StatusCode | None = None
        self.status: status_pb2.Status | None = None
        """What the call failed with; None: it did not."""
        self.trailing_metadata: list[tuple[str, str]] = []
        """Said at the end of a call that failed, besides its status."""

    def expire(self) -> None:
        """Notes that the time has passed: clocks may differ in the last millisecond."""
        self._deadline = -math.inf

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """As `grpc.aio.ServicerContext`."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """As `grpc.aio.ServicerContext`."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def auth_context(self) -> Any:
        """As `grpc.aio.ServicerContext`: the connection's."""
        return self._stream.auth_context()

    def peer(self) -> str:
        """As `grpc.aio.ServicerContext`."""
        return self._stream.peer()

    def code(self) -> grpc.StatusCode | None:
        """As `grpc.aio.ServicerContext`."""
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        """As `grpc.aio.ServicerContext`."""
        self._code = code
        self.status = status_pb2.Status(code=code.value[0])

    def set_details(self, details: str) -> None:
        """As `grpc.aio.ServicerContext`, after `set_code`."""
        if self.status is not None:
            self.status.message = details

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """As `grpc.aio.ServicerContext`: a status with details is what the call failed with."""
        for key, value in metadata:
            if key == _STATUS_DETAILS and isinstance(value, bytes):
                self.status = status_pb2.Status.FromString(value)
            elif isinstance(value, str):
                self.trailing_metadata.append((key, value))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """As `grpc.aio.ServicerContext`.

        Raises:
            grpc.aio.AbortError: Always.
        """
        self.set_code(code)
        self.set_details(details)
        self.set_trailing_metadata(trailing_metadata)
        raise grpc.aio.AbortError
