"""What every answer says to browsers: what the page may load, and what others may do with it."""

from __future__ import annotations

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def policy(content_type: bytes) -> bytes:
    """Returns the content security policy of an answer: only the page may load anything, and only from here."""
    return (_PAGE if content_type.startswith(b"text/html") else _NOTHING).encode()
