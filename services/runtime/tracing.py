"""Traces of a service: OpenTelemetry's SDK, loaded and running only where an endpoint is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import grpc

from services.runtime import metrics
from services.runtime.settings import ServiceSettings
from vitrine.tracing import TRACE_PARENT, TRACE_STATE
from vitrine.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

# Spans held until they are sent; more are dropped, and counted.
_QUEUED_SPANS = 8_192
_SENT_TOGETHER = 512
_SEND_EVERY_MS = 1_000.0
_SEND_SECONDS = 5.0

# Whose fault these are is ours; a caller's mistake is no error of the service.
_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

REQUEST_ID_ATTRIBUTE = "vitrine.request_id"

_Attributes = dict[str, str | int]
_serve: Callable[[str, Mapping[str, str], _Attributes], ServerSpan] | None = None


class ServerSpan:
    """The span of one call being served; the present one of its task until the task ends."""

    __slots__ = ("_span", "exemplar")

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.exemplar = {"trace_id": f"{context.trace_id:032x}"} if context.trace_flags.sampled else None
        """What ties a measurement of the call to its trace; None where that is not recorded."""

    def end(self, code: grpc.StatusCode) -> None:
        """Ends it with the status of a gRPC call."""
        self._end("rpc.grpc.status_code", code.value[0], code.name if code in _ERRORS else "")

    def end_http(self, status: int) -> None:
        """Ends it with the status of an HTTP request."""
        self._end("http.response.status_code", status, str(status) if status >= 500 or status == 429 else "")

    def _end(self, attribute: str, value: int, error: str) -> None:
        if self._span.is_recording():
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute(attribute, value)
            if error:
                self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def serve_call(method: str, metadata: Mapping[str, str], request_id: str) -> ServerSpan | None:
    """Begins the span of a gRPC call and makes it the present one of this task; None: this process does not trace.

    Args:
        method: `/package.Service/Method`.
        metadata: What the call came with; of it, the W3C trace context is read.
        request_id: The call's id.
    """
    if _serve is None:
        return None
    name = method.removeprefix("/")
    service, _, rpc = name.partition("/")
    about: _Attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc}
    return _serve(name, metadata, {**about, REQUEST_ID_ATTRIBUTE: request_id})


def serve_request(method: str, route: str, headers: Mapping[str, str], request_id: str) -> ServerSpan | None:
    """As `serve_call`, for an HTTP request; names of headers are in lower case."""
    if _serve is None:
        return None
    about: _Attributes = {"http.request.method": method, "http.route": route}
    return _serve(f"{method} {route}", headers, {**about, REQUEST_ID_ATTRIBUTE: request_id})


def start_tracing(settings: ServiceSettings) -> Callable[[], None]:
    """Traces from now on, where the settings name an endpoint; returns what sends the last spans and ends it.

    Once for a process.
    """
    global _serve
    if not settings.otlp_endpoint:
        return lambda: None
    # Here and not above: a service that does not trace does not load them.
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    class Exporter(OTLPSpanExporter):
        """Counts what it sends."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            metrics.SPANS.labels("sent" if result is SpanExportResult.SUCCESS else "failed").inc(len(spans))
            return result

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(settings.trace_sample_ratio),
        resource=Resource.create(
            {
                "service.name": f"vitrine-{settings.section}",
                "service.version": VERSION,
                "service.instance.id": f"{settings.host}:{settings.port}",
            }
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            Exporter(endpoint=settings.otlp_endpoint, timeout=_SEND_SECONDS),
            max_queue_size=_QUEUED_SPANS,
            max_export_batch_size=_SENT_TOGETHER,
            schedule_delay_millis=_SEND_EVERY_MS,
        )
    )
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("vitrine")
    propagator = TraceContextTextMapPropagator()

    def serve(name: str, metadata: Mapping[str, str], attributes: _Attributes) -> ServerSpan:
        carrier = {key: metadata[key] for key in (TRACE_PARENT, TRACE_STATE) if key in metadata}
        parent = propagator.extract(carrier, contexts.Context())
        span = tracer.start_span(name, parent, kind=trace.SpanKind.SERVER, attributes=attributes)
        contexts.attach(trace.set_span_in_context(span))
        return ServerSpan(span)

    def stop() -> None:
        global _serve
        _serve = None
        provider.shutdown()

    _serve = serve
    return stop
