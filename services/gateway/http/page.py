"""The web page: a few static files, read once, with entity tags."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


class _File(NamedTuple):
    content: bytes
    compressed: bytes
    media_type: str
    tag: str


class Page:
    """Serves `index.html` at `/` and everything in the folder at `/static/NAME`."""

    def __init__(self) -> None:
        self._files = {path.name: _load(path) for path in FOLDER.iterdir() if path.suffix in _TYPES}

    async def index(self, request: Request) -> Response:
        """GET /."""
        return _answer(request, self._files["index.html"])

    async def file(self, request: Request) -> Response:
        """GET /static/{name}."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404, "no such file")
        return _answer(request, file)


def _load(path: Path) -> _File:
    content = path.read_bytes()
    tag = hashlib.sha256(content).hexdigest()[:24]
    return _File(content, gzip.compress(content, mtime=0), _TYPES[path.suffix], tag)


def _answer(request: Request, file: _File) -> Response:
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    tag = f'"{file.tag}-gzip"' if zipped else f'"{file.tag}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if zipped:
        headers["Content-Encoding"] = "gzip"
    return Response(file.compressed if zipped else file.content, headers=headers, media_type=file.media_type)
