"""What every answer says to browsers: what the page may load, and what others may do with it."""

from __future__ import annotations

from collections.abc import Iterable

from vitrine.passing import REQUEST_ID

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def dress(given: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an answer with those that every answer has; what is not to be cached says so."""
    headers = [*given, *_ALWAYS, (REQUEST_ID.encode(), request_id.encode())]
    there = dict(headers)
    # None where there is no content: a 304 would replace the policy that the browser keeps with the page.
    if (content_type := there.get(b"content-type")) is not None:
        headers.append((b"content-security-policy", _policy(content_type)))
    if b"cache-control" not in there:
        headers.append((b"cache-control", b"no-store"))
    return headers


def _policy(content_type: bytes) -> bytes:
    """Only the page may load anything, and only from here."""
    return (_PAGE if content_type.startswith(b"text/html") else _NOTHING).encode()
