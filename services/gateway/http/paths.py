"""Ids in paths: any text, slashes included, each escaped as one segment."""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.requests import Request

from vitrine.errors import NotFoundError


def path_of(prefix: str, *ids: str) -> str:
    """Returns the path of something by its ids."""
    return prefix + "/".join(quote(each, safe="") for each in ids)


def ids_of(request: Request, prefix: str, count: int) -> list[str]:
    """Returns the ids of a path, from the path as it was sent.

    Raises:
        NotFoundError: It does not have so many.
    """
    segments = request.scope["raw_path"].decode("ascii", errors="replace").removeprefix(prefix).split("/")
    if len(segments) != count:
        raise NotFoundError(f"{prefix} is followed by {count} ids, here by {len(segments)}; a slash in an id is %2F")
    return [unquote(each, errors="replace") for each in segments]
