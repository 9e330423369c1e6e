"""Files that survive a crash: nothing counts before its bytes and its directory entry are on disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# What link() answers where two names cannot share a file: across file systems, on one without links, or too many.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

_CHUNK_BYTES = 2**20


class DamagedFileError(Exception):
    """A file is not what was written; the message says why, not which file."""


def sync_directory(path: Path) -> None:
    """Puts a directory's entries on disk: new, renamed and removed names."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Puts a file's bytes on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file so that a crash leaves the old or the new content, never a mixture."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # on a full disk it would keep what room there is
        raise
    sync_directory(path.parent)


def write_checked(path: Path, body: dict[str, Any]) -> None:
    """Replaces a JSON file atomically; `body` (which has no key `sha256`) is stored with its checksum."""
    write_atomically(path, json.dumps({**body, "sha256": _digest(body)}, indent=1).encode())


def read_checked(path: Path, *, known_format: int) -> dict[str, Any]:
    """Returns the body of a file that `write_checked` wrote; its key `format` is `known_format`.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It fails its checksum or is of an unknown format.
    """
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
        healthy = body.pop("sha256") == _digest(body)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedFileError(f"it cannot be read: {error}") from None
    if not healthy:
        raise DamagedFileError("its checksum is wrong")
    if body.get("format") != known_format:
        raise DamagedFileError(f"its format is {body.get('format')}, this program knows {known_format}")
    return body


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file that never changes a second name, or copies it where the file systems allow no link.

    The bytes are on disk when it returns; the new name is not before its folder is synced.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)
        sync_file(target)


def sha256_of(path: Path, between: Callable[[], None] | None = None) -> str:
    """Returns the lower-case hex sha256 of a file; calls `between` after each MiB, which may raise to give it up."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            if between is not None:
                between()
    return digest.hexdigest()


def disk_bytes(directory: Path) -> int:
    """Returns the bytes allocated below a directory; what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def remove_tree(path: Path) -> None:
    """Removes a folder and all below it, as far as it can; what is left is no worse than before."""
    shutil.rmtree(path, ignore_errors=True)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
