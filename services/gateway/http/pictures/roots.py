"""Opens files under the folders that the gateway may serve from, and no other."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath


class Roots:
    """Folders whose files may be served.

    A path is walked folder by folder from its root, none of them a symbolic link, so that there is no moment between
    a check and its use.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Raises NotADirectoryError where one is no folder."""
        self._folders: list[tuple[Path, ...]] = []
        for folder in folders:
            if not folder.is_dir():
                raise NotADirectoryError(f"image_roots: {folder} is no folder")
            self._folders.append((folder.absolute(), folder.resolve()))

    def __bool__(self) -> bool:
        return bool(self._folders)

    def open(self, path: PurePosixPath) -> int | None:
        """Returns a file descriptor of a regular file; None: there is none under any root.

        A relative path is tried under each root in turn.
        """
        for absolute, resolved in self._folders:
            below = _below(path, (absolute, resolved))
            if below is not None and (descriptor := _walk(resolved, below)) is not None:
                return descriptor
        return None


def _below(path: PurePosixPath, spellings: Sequence[Path]) -> tuple[str, ...] | None:
    """Returns the steps from a root to a path; None: it does not lie below."""
    if not path.is_absolute():
        steps = path.parts
    else:
        root = next((each for each in spellings if path.is_relative_to(each)), None)
        if root is None:
            return None
        steps = path.relative_to(root).parts
    return steps if steps and not any(step == ".." or "\0" in step for step in steps) else None


def _walk(root: Path, steps: Sequence[str]) -> int | None:
    *folders, name = steps
    with contextlib.ExitStack() as opened:

        def enter(step: str | Path, below: int | None) -> int:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(step, flags, dir_fd=below)
            opened.callback(os.close, descriptor)
            return descriptor

        try:
            here = enter(root, None)
            for step in folders:
                here = enter(step, here)
            # Not blocking: the name may be a pipe's.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=here)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor
