"""Files that survive a crash: nothing counts before its bytes and its directory entry are on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


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
    with temporary.open("wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sha256_of(path: Path) -> str:
    """Returns the lower-case hex sha256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


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
