"""Where pictures are: the address that browsers ask for, and the file that a stored image names."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from services.gateway.http.paths import path_of

PICTURES = "/v1/images/"


def picture_url(collection: str, product_id: str, image_id: str, uri: str) -> str | None:
    """Returns where the gateway serves a stored image; None: its URI is no file's."""
    if file_path(uri) is None:
        return None
    return path_of(PICTURES, collection, product_id, image_id)


def file_path(uri: str) -> PurePosixPath | None:
    """Returns the path that an image URI names (`file:` URI, absolute or relative path); None: it is no file's."""
    try:
        address = urlsplit(uri)
    except ValueError:
        return None
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        path = unquote(address.path)
    elif address.scheme or uri.startswith("//"):
        return None
    else:
        path = uri
    return PurePosixPath(path) if path else None
