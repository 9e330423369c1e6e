"""Answers a request for a product picture: looked up in the index, read under a root, cached by what the file is."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.http.pictures.address import file_path
from services.gateway.http.pictures.roots import Roots
from services.gateway.http.pictures.thumbnails import (
    NoPictureError,
    Picture,
    ThumbnailCache,
    image_type,
    next_width,
    shrink,
)
from vitrine.errors import NotFoundError
from vitrine.v1 import indexer_pb2

_THREADS = 2
_CACHE_BYTES = 32 * 2**20
_CACHE_CONTROL = "private, max-age=300"


Answer = TypeVar("Answer")


class Pictures:
    """Serves the pictures of stored images. File work runs in a few threads of its own."""

    def __init__(self, roots: Sequence[Path], max_bytes: int) -> None:
        """`max_bytes`: of one file.

        Raises:
            NotADirectoryError: A root is no folder.
        """
        self._roots = Roots(roots)
        self._max_bytes = max_bytes
        self._cache = ThumbnailCache(_CACHE_BYTES)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pictures")

    @property
    def served(self) -> bool:
        """Whether there is any folder to serve from."""
        return bool(self._roots)

    async def answer(self, request: Request, point: indexer_pb2.Point, width: int | None) -> Response:
        """Answers with the picture of a stored image, `width` pixels across or a little more; None: as it is.

        Raises:
            NotFoundError: There is no such file, it may not be served, or it is no image.
        """
        known = request.headers.get("if-none-match", "")
        size = None if width is None else next_width(width)
        try:
            tag, picture = await self._run(lambda: self._load(point.image_uri, size, known))
        except NoPictureError as error:
            raise NotFoundError(f"the picture of {point.key.product_id!r} is not served: {error}") from None
        headers = {"ETag": f'"{tag}"', "Cache-Control": _CACHE_CONTROL}
        if picture is None:
            return Response(status_code=304, headers=headers)
        return Response(picture.data, headers=headers, media_type=picture.media_type)

    def close(self) -> None:
        """Ends the threads; what they do is finished first."""
        self._threads.shutdown()

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _load(self, uri: str, width: int | None, known: str) -> tuple[str, Picture | None]:
        """Returns the entity tag of a picture and, unless the caller has it, the picture."""
        path = file_path(uri)
        descriptor = self._roots.open(path) if path is not None else None
        if descriptor is None:
            raise NoPictureError("it lies under none of image_roots")
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_size > self._max_bytes:
                raise NoPictureError(f"{status.st_size} bytes, at most {self._max_bytes} (image_max_bytes)")
            identity = f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}:{width}"
            tag = hashlib.sha256(identity.encode()).hexdigest()[:24]
            if known == "*" or f'"{tag}"' in known:
                return tag, None
            if (picture := self._cache.get(tag)) is not None:
                return tag, picture
            data = file.read(self._max_bytes)
        media_type = image_type(data)
        if media_type is None:
            raise NoPictureError("it is no JPEG, PNG or WebP file")
        picture = Picture(data, media_type)
        if width is not None:
            picture = shrink(picture, width)
            self._cache.put(tag, picture)
        return tag, picture
