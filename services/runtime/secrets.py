"""The files that let callers in, certificate and identities: read at start, and again whenever they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import structlog

from services.runtime import metrics
from services.runtime.guard import Guard
from services.runtime.identities import load_directory
from services.runtime.settings import ServiceSettings, SettingsError
from services.runtime.tls import ServerTls

log = structlog.get_logger()

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]

_LOOK_SECONDS = 1.0


@dataclass
class _Watched:
    """Some files that are read together."""

    what: str
    files: tuple[Path, ...]
    reload: Callable[[], None]
    stamp: _Stamp = field(init=False)

    def __post_init__(self) -> None:
        self.stamp = _stamp(self.files)


class Secrets:
    """Certificate and identities of one service."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Reads what the settings name.

        Raises:
            SettingsError: A file cannot be read or is wrong.
        """
        self._auth_file = settings.auth_file
        self._watched: list[_Watched] = []
        self.tls = ServerTls.from_settings(settings)
        """None: plain text."""
        self.guard = Guard(load_directory(settings.auth_file) if settings.auth_file else None)
        if self.tls is not None:
            self._watched.append(_Watched("tls", self.tls.files, self.tls.reload))
        if settings.auth_file is not None:
            self._watched.append(_Watched("auth", (settings.auth_file,), self._reload_directory))

    async def watch(self) -> None:
        """Looks at the files once a second, for ever, and takes up what changed."""
        while self._watched:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self._take_up, force=False)

    async def reload(self) -> None:
        """Reads all of them again, changed or not."""
        await asyncio.to_thread(self._take_up, force=True)

    def _take_up(self, *, force: bool) -> None:
        """Files that are wrong change nothing: what was read before goes on, and the metric and the log say so."""
        for each in self._watched:
            stamp = _stamp(each.files)
            if stamp == each.stamp and not force:
                continue
            each.stamp = stamp
            try:
                each.reload()
            except (SettingsError, OSError) as error:
                metrics.SECRET_RELOADS.labels(each.what, "failed").inc()
                log.error("not reloaded, the one before stays in use", what=each.what, error=str(error))
            else:
                metrics.SECRET_RELOADS.labels(each.what, "ok").inc()
                log.info("reloaded", what=each.what)

    def _reload_directory(self) -> None:
        assert self._auth_file is not None
        self.guard.directory = load_directory(self._auth_file)


def _stamp(files: Iterable[Path]) -> _Stamp:
    return tuple(_stamp_of(each) for each in files)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
