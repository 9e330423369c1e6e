"""What can go wrong, once: Vitrine's exceptions and the one table that maps them to gRPC status codes.

Services raise these; `services.runtime` turns them into statuses with `google.rpc` details; the client turns
statuses back into the same exceptions. Nothing else picks a status code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class FieldViolation(NamedTuple):
    """Names a request field and what is wrong with its value."""

    field: str
    description: str


class VitrineError(Exception):
    """Base of every error that crosses a service boundary.

    Attributes:
        message: What went wrong, for people; names the field, the limit and the value where there is one.
        violations: The offending request fields, sent as `google.rpc.BadRequest`.
        retry_after: Seconds to wait before another try, sent as `google.rpc.RetryInfo`; None: no advice.
        remote: Another service said so, over the wire.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations) or ((FieldViolation(field, message),) if field else ())
        self.retry_after = retry_after
        self.remote = False


class InvalidArgumentError(VitrineError):
    """The request itself is wrong; it fails the same way every time."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class TooLargeError(VitrineError):
    """The request is over a size limit; the message names the limit and the size."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class OverloadedError(VitrineError):
    """No capacity at the moment; `retry_after` says when to come back."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class NotFoundError(VitrineError):
    """A collection, product, image or model that is not there."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(VitrineError):
    """It exists already, and differently."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PreconditionError(VitrineError):
    """The request is fine, but not for this state: another embedding space, another shard's key."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class UnavailableError(VitrineError):
    """The service, or one it needs, cannot be reached or is going away; the call had no effect."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineError(VitrineError):
    """The caller's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class CancelledCallError(VitrineError):
    """The caller went away."""

    code = grpc.StatusCode.CANCELLED


class UnimplementedError(VitrineError):
    """Declared in the contract, not in this version."""

    code = grpc.StatusCode.UNIMPLEMENTED


class PermissionDeniedError(VitrineError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnauthenticatedError(VitrineError):
    """The caller did not say who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED


class DataLossError(VitrineError):
    """Stored data failed its checksum and is not served."""

    code = grpc.StatusCode.DATA_LOSS


class InternalError(VitrineError):
    """A defect in a service."""

    code = grpc.StatusCode.INTERNAL


_BY_CODE: dict[grpc.StatusCode, type[VitrineError]] = {
    kind.code: kind
    for kind in (
        InvalidArgumentError,
        OverloadedError,
        NotFoundError,
        AlreadyExistsError,
        PreconditionError,
        UnavailableError,
        DeadlineError,
        CancelledCallError,
        UnimplementedError,
        PermissionDeniedError,
        UnauthenticatedError,
        DataLossError,
        InternalError,
    )
}
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def to_status(error: VitrineError) -> status_pb2.Status:
    """Returns the `google.rpc.Status` of an error, with `BadRequest` and `RetryInfo` details."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    details: list[Any] = []
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        details.append(bad_request)
    if error.retry_after is not None:
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(retry_info)
    for detail in details:
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(status: status_pb2.Status) -> VitrineError | None:
    """Returns the error a `google.rpc.Status` stands for; None for OK."""
    if status.code == grpc.StatusCode.OK.value[0]:
        return None
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    for packed in status.details:
        bad_request, retry_info = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(bad_request):
            violations += [FieldViolation(each.field, each.description) for each in bad_request.field_violations]
        elif packed.Unpack(retry_info):
            retry_after = retry_info.retry_delay.ToNanoseconds() / 1e9
    return _make(_BY_NUMBER.get(status.code), status.message, violations, retry_after)


def from_rpc_error(error: grpc.RpcError) -> VitrineError:
    """Returns the error a failed call stands for, with its details where the server sent any."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # code and details disagree: a proxy rewrote one of them
        status = None
    if status is not None and (decoded := from_status(status)) is not None:
        return decoded
    code = error.code() if hasattr(error, "code") else None
    details = error.details() if hasattr(error, "details") else None
    if details and "message larger than max" in details:  # gRPC's own refusal does not name the setting
        details = f"max_message_bytes: {details}"
    return _make(code, details or f"call failed: {code}", (), None)


def _make(
    code: grpc.StatusCode | None,
    message: str,
    violations: Iterable[FieldViolation],
    retry_after: float | None,
) -> VitrineError:
    kind = _BY_CODE.get(code, InternalError) if code is not None else InternalError
    # Only overload carries retry advice; the same code without it is a size limit.
    if kind is OverloadedError and retry_after is None:
        kind = TooLargeError
    error = kind(message, violations=violations, retry_after=retry_after)
    error.remote = True
    return error
