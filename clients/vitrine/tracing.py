"""Traces, in processes that have them: spans through OpenTelemetry's API, and nothing at all without it.

A process may trace where something has imported OpenTelemetry (an application for itself, `services.runtime.tracing`
for a service), and a call belongs to a trace where there is a present span. This module imports nothing and begins no
trace, so that a process without traces pays a look into a dictionary for each question.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.trace import Span

TRACE_PARENT = "traceparent"
TRACE_STATE = "tracestate"

_API = "opentelemetry.trace"
_TRACER = "vitrine"

_stages_wanted: ContextVar[bool] = ContextVar("vitrine_stages_wanted", default=True)


class CallSpan(NamedTuple):
    """The span of one outgoing call."""

    span: Span
    metadata: tuple[tuple[str, str], ...]
    """The trace's context as W3C headers, for the other side."""

    def ended(self, call: Any) -> None:
        """Ends it; for the call's `add_done_callback`."""
        self.span.end()


def begin_call(path: str) -> CallSpan | None:
    """Begins the span of a call to `/package.Service/Method`; None: it belongs to no trace."""
    api = sys.modules.get(_API)
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return None
    span: Span = api.get_tracer(_TRACER).start_span(path.removeprefix("/"), kind=api.SpanKind.CLIENT)
    context = span.get_span_context()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header()
    return CallSpan(span, ((TRACE_PARENT, parent), (TRACE_STATE, state)) if state else ((TRACE_PARENT, parent),))


def record_stages(stages: Iterable[tuple[str, float]]) -> None:
    """Records stages of the present span: seconds by name, one right after the other, the last one ending now."""
    api = sys.modules.get(_API)
    if api is None or not _stages_wanted.get() or not api.get_current_span().is_recording():
        return
    tracer = api.get_tracer(_TRACER)
    ended = time.time_ns()
    for name, seconds in reversed(list(stages)):
        started = ended - int(seconds * 1e9)
        tracer.start_span(name, start_time=started).end(ended)
        ended = started


def leave_stages_out() -> None:
    """Makes `record_stages` record nothing in this context: a stream may carry images by the million."""
    _stages_wanted.set(False)


def current_trace_id() -> str:
    """Returns the id of the present trace, 32 hex digits; empty: there is none."""
    api = sys.modules.get(_API)
    if api is None:
        return ""
    context = api.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def exemplar() -> dict[str, str] | None:
    """Returns what ties a measurement to the present trace; None where that is not recorded."""
    api = sys.modules.get(_API)
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    return {"trace_id": f"{context.trace_id:032x}"} if context.trace_flags.sampled else None
