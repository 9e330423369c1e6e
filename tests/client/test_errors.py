"""The one table of errors, there and back."""

import grpc
import pytest

from vitrine import errors


def all_kinds():
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.VitrineError)]


@pytest.mark.parametrize("kind", [kind for kind in all_kinds() if kind is not errors.VitrineError])
def test_every_error_survives_the_wire(kind):
    retry_after = 2.25 if kind is errors.OverloadedError else None
    error = kind("k is 0, must be 1 to 1,000", field="k", retry_after=retry_after)
    status = errors.to_status(error)
    assert status.code == kind.code.value[0]
    back = errors.from_status(status)
    assert type(back) is kind
    assert (back.message, back.violations, back.retry_after) == (error.message, error.violations, retry_after)


def test_ok_is_no_error():
    from google.rpc import status_pb2

    assert errors.from_status(status_pb2.Status()) is None


def test_a_code_nobody_uses_becomes_internal():
    from google.rpc import status_pb2

    unknown = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message="?")
    assert isinstance(errors.from_status(unknown), errors.InternalError)
