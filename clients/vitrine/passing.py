"""What a call passes on to the calls made on its behalf: the caller's name, the request id and the trace."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from vitrine.callers import caller_metadata
from vitrine.tracing import begin_call
from vitrine.wrapping import WrappingChannel

REQUEST_ID = "x-request-id"
"""The gRPC metadata key that carries a request's id."""

current_request_id: ContextVar[str] = ContextVar("vitrine_request_id", default="")
"""Of the call that this code runs for; log lines say it, and further calls carry it on."""


class PassingChannel(WrappingChannel):
    """Adds to the metadata of every call what the present one came with; what the call says itself stays."""

    def wrap(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """As `WrappingChannel`."""

        def call(*arguments: Any, metadata: Any = None, **options: Any) -> Any:
            said = _with_present(tuple(metadata or ()))
            traced = begin_call(path)
            if traced is None:
                return method(*arguments, metadata=said or None, **options)
            running = method(*arguments, metadata=said + traced.metadata, **options)
            running.add_done_callback(traced.ended)
            return running

        return call


def _with_present(said: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    request_id = current_request_id.get()
    present = (*caller_metadata(), *(((REQUEST_ID, request_id),) if request_id else ()))
    if not said:
        return present
    names = {name for name, _ in said}
    return said + tuple(each for each in present if each[0] not in names)
