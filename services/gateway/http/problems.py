"""The one place that maps errors to HTTP: status, problem details (RFC 9457), and when to come back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus

import structlog
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from vitrine.errors import (
    AlreadyExistsError,
    CancelledCallError,
    DataLossError,
    DeadlineError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PreconditionError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VitrineError,
)
from vitrine.passing import current_request_id

CLIENT_CLOSED_REQUEST = 499
"""What nobody is there to read any more; for metrics."""

_STATUS: dict[type[VitrineError], int] = {
    InvalidArgumentError: 400,
    UnauthenticatedError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    AlreadyExistsError: 409,
    PreconditionError: 409,
    TooLargeError: 413,
    OverloadedError: 429,
    CancelledCallError: CLIENT_CLOSED_REQUEST,
    InternalError: 500,
    DataLossError: 500,
    UnimplementedError: 501,
    UnavailableError: 503,
    DeadlineError: 504,
}
_CODE_OF_STATUS = {404: "NOT_FOUND", 405: "UNIMPLEMENTED", 415: "INVALID_ARGUMENT"}

log = structlog.get_logger()


class Violation(BaseModel):
    """A field of the request and what is wrong with it."""

    field: str
    description: str


class Problem(BaseModel):
    """Problem details as of RFC 9457; `code` is the gRPC status code of the same error."""

    type: str = Field("about:blank", description="Always about:blank: `code` says which problem it is.")
    title: str
    status: int
    detail: str = Field(description="For people: names the field, the limit and the value where there is one.")
    code: str = Field(description="As over gRPC: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, ...")
    request_id: str = Field(description="Also in the header X-Request-Id and in the gateway's logs.")
    violations: list[Violation] = Field([], description="The offending fields of the request.")


def from_validation(error: ValidationError) -> InvalidArgumentError:
    """Returns the error that a request stands for which is not of its model."""
    violations = [FieldViolation(_path(each["loc"]), each["msg"]) for each in error.errors(include_url=False)]
    first = violations[0]
    return InvalidArgumentError(f"{first.field}: {first.description}", violations=violations)


def problem_response(error: Exception) -> Response:
    """Returns the answer that an error stands for; what is no known error is logged, and told as internal."""
    if isinstance(error, VitrineError):
        if isinstance(error, InternalError):
            log.error("request failed", error=error.message)
        status = _STATUS[type(error)]
        headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
        if isinstance(error, UnauthenticatedError):
            headers["WWW-Authenticate"] = "Bearer"
        return _respond(status, error.message, error.code.name, error.violations, headers)
    if isinstance(error, HTTPException):
        code = _CODE_OF_STATUS.get(error.status_code, "INVALID_ARGUMENT")
        return _respond(error.status_code, error.detail, code, (), dict(error.headers or {}))
    log.exception("request failed")
    told = f"internal error; request id {current_request_id.get()}"
    return _respond(500, told, InternalError.code.name, (), {})


def _respond(
    status: int, detail: str, code: str, violations: Iterable[FieldViolation], headers: dict[str, str]
) -> Response:
    problem = Problem(
        title="Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=current_request_id.get(),
        violations=[Violation(field=each.field, description=each.description) for each in violations],
    )
    return Response(problem.model_dump_json(), status, headers, media_type="application/problem+json")


def _path(location: tuple[int | str, ...]) -> str:
    """Writes `("query", 0, "box")` as `query[0].box`; a request as a whole is its body."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "body"
