"""Who a call is made for, so that services can share themselves out fairly. Optional, and no proof of identity."""

from __future__ import annotations

import re
from contextvars import ContextVar

from vitrine.errors import InvalidArgumentError

CLIENT_HEADER = "x-vitrine-client"
"""The gRPC metadata key that carries a caller's name."""

_VALID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,63}")

_current: ContextVar[str] = ContextVar("vitrine_caller", default="")


def current_caller() -> str:
    """Returns the caller on whose behalf this code runs; empty: it did not say."""
    return _current.get()


def set_caller(name: str) -> None:
    """Makes `name` the caller for the rest of this context (in asyncio: of this task).

    Raises:
        InvalidArgumentError: Not a name of 1 to 64 letters, digits and . _ : @ / -, the first a letter or digit.
    """
    _current.set(check_caller(name))


def check_caller(name: str) -> str:
    """Returns the name.

    Raises:
        InvalidArgumentError: As `set_caller`.
    """
    if name and not is_caller(name):
        raise InvalidArgumentError(
            f"{CLIENT_HEADER} is {name[:80]!r}, must be 1 to 64 letters, digits and . _ : @ / -, "
            "the first a letter or digit",
            field=CLIENT_HEADER,
        )
    return name


def is_caller(name: str) -> bool:
    """Tells whether this can be a caller's name."""
    return _VALID.fullmatch(name) is not None


def caller_metadata() -> tuple[tuple[str, str], ...]:
    """Returns the gRPC metadata that passes the current caller on."""
    name = _current.get()
    return ((CLIENT_HEADER, name),) if name else ()
