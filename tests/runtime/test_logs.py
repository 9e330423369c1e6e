"""What is logged, and what is not worth a line."""

import io
import json
import logging
import sys

import pytest
import structlog

from services.runtime.logs import configure_logs
from vitrine.passing import current_request_id


class ExecuteBatchError(Exception):
    """Named as gRPC's own, which is not public."""


@pytest.fixture
def lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    configure_logs("indexer", "info", "json")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_an_answer_that_could_not_be_sent_is_one_line_and_no_defect(lines):
    logger = logging.getLogger("grpc._cython.cygrpc")
    for error in (ExecuteBatchError("gone"), RuntimeError("a defect")):
        try:
            raise error
        except Exception:
            logger.exception("raised")
    unsent, defect = lines()
    assert (unsent["level"], "exception" in unsent) == ("warning", False)
    assert unsent["event"] == "answer not sent, nobody there or too large: raised"
    assert (defect["level"], defect["exception"].splitlines()[-1]) == ("error", "RuntimeError: a defect")


def test_lines_of_a_call_say_which(lines):
    token = current_request_id.set("req-42")
    structlog.get_logger().warning("careful", points=3)
    logging.getLogger("some.library").error("odd")
    current_request_id.reset(token)
    structlog.get_logger().warning("later")
    assert [(line["event"], line.get("request_id"), line["service"]) for line in lines()] == [
        ("careful", "req-42", "indexer"),
        ("odd", "req-42", "indexer"),
        ("later", None, "indexer"),
    ]
