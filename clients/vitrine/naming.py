"""Says which process an error is about: what gRPC reports names neither the service nor what to do."""

from __future__ import annotations

from vitrine.errors import UnavailableError, VitrineError

# How gRPC's own account of a failed connection begins; it ends with what the system said.
_NEVER_CONNECTED = ("last error:", "errors resolving")


def named(error: VitrineError, what: str, address: str) -> VitrineError:
    """Returns the error of a call to one process (`the embedder`, `shard 0`), with its name and address."""
    if isinstance(error, UnavailableError) and any(mark in error.message for mark in _NEVER_CONNECTED):
        reason = error.message.rsplit(": ", 1)[-1].rstrip("]")
        return UnavailableError(f"cannot reach {what} at {address} ({reason}): is it running?")
    renamed = type(error)(
        f"{what} at {address}: {error.message}", violations=error.violations, retry_after=error.retry_after
    )
    renamed.remote = error.remote
    return renamed
