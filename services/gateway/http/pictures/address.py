"""Where pictures are: the address that browsers ask for, and the file that a stored image names."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

PREFIX = "/v1/images/"


def picture_url(collection: str, product_id: str, image_id: str, uri: str) -> str | None:
    """Returns where the gateway serves a stored image; None: its URI is no file's."""
    if file_path(uri) is None:
        return None
    return PREFIX + "/".join(quote(each, safe="") for each in (collection, product_id, image_id))


def parse_picture_url(raw_path: bytes) -> tuple[str, str, str] | None:
    """Returns collection, product id and image id of such an address as it was sent; None: it is none."""
    parts = raw_path.decode("ascii", errors="replace").removeprefix(PREFIX).split("/")
    if len(parts) != 3:
        return None
    collection, product_id, image_id = (unquote(each, errors="replace") for each in parts)
    return collection, product_id, image_id


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
