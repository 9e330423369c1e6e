"""Structured logs on standard error: JSON lines for machines, coloured columns on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from vitrine.passing import current_request_id
from vitrine.tracing import current_trace_id


def configure_logs(service: str, level: str, log_format: str) -> None:
    """Sets up structlog and routes the standard library's loggers through it."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(pad_event_to=28)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    minimum = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(minimum, logging.WARNING), force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_calm)
    structlog.contextvars.bind_contextvars(service=service)


def _calm(record: logging.LogRecord) -> bool:
    """Makes one line of what gRPC takes for a defect: an answer that could not be sent.

    Mostly its caller went in that instant; an answer over the message limit looks the same.
    """
    if record.exc_info and type(record.exc_info[1]).__name__ == "ExecuteBatchError":
        record.msg, record.args = f"answer not sent, nobody there or too large: {record.getMessage()}", ()
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _add_ids(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if request_id := current_request_id.get():
        event.setdefault("request_id", request_id)
    if trace_id := current_trace_id():
        event.setdefault("trace_id", trace_id)
    return event
