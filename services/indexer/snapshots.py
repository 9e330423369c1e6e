"""Consistent copies of a collection on the shard's own disk, made while it serves.

A snapshot is the database, copied as of one commit, and links to the segments. The segments are listed and linked
before the database is read: labels are never used twice, so of what a segment held then the copy may have lost points,
but not gained any. Whatever no segment holds is in the database.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from services.indexer import metrics
from services.indexer.collection import Collection
from services.indexer.files import (
    DamagedFileError,
    disk_bytes,
    link_or_copy,
    read_checked,
    sha256_of,
    sync_directory,
    write_checked,
)
from services.indexer.layout import DATABASE, SEGMENTS, DataDir, SnapshotFiles
from services.indexer.manifest import SegmentEntry, save_manifest
from services.indexer.schema import connect
from vitrine.errors import AlreadyExistsError, DataLossError, NotFoundError, UnavailableError
from vitrine.keys import check_collection_name
from vitrine.v1 import indexer_pb2

FORMAT = 1
_NAME = "snapshot.json"

# Of the database, copied in one go; then the thread pauses for as long as that took, so that half of the disk is left.
_PAGES_AT_A_TIME = 256
# Written out before more is copied: a commit's sync must not wait for gigabytes that the system holds back.
_STEPS_BETWEEN_SYNCS = 8

log = structlog.get_logger()


class SnapshotInfo(BaseModel):
    """What a snapshot says of itself: whose it is, as of which commit and time, and the sha256 of its database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    collection: str
    name: str
    generation: int
    taken: datetime
    database_sha256: str


class _StoppedError(Exception):
    """Nobody waits for the snapshot any more."""


class Snapshots:
    """Takes snapshots, one at a time: they share a disk."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._turn = asyncio.Lock()
        self._running: dict[asyncio.Task[indexer_pb2.SnapshotResponse], threading.Event] = {}

    async def take(self, collection: Collection, name: str) -> indexer_pb2.SnapshotResponse:
        """Copies a collection; complete on disk when it returns. One that is cancelled before leaves nothing.

        Raises:
            InvalidArgumentError: The name breaks its limit.
            AlreadyExistsError: The collection has a snapshot of that name.
            NotFoundError: The collection was dropped meanwhile.
            DataLossError: The collection's database is damaged.
            UnavailableError: The disk refuses, or the shard is stopping; nothing is left.
        """
        check_collection_name(name, "name")
        stop = threading.Event()
        # A task of its own: it cleans up to the end, also after its caller has gone.
        task = asyncio.create_task(self._take(collection, name, stop))
        self._running[task] = stop
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def close(self) -> None:
        """Gives up what is under way."""
        for stop in self._running.values():
            stop.set()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[indexer_pb2.SnapshotResponse]) -> None:
        del self._running[task]
        if not task.cancelled():
            task.exception()  # heard by nobody where the caller has gone

    async def _take(self, collection: Collection, name: str, stop: threading.Event) -> indexer_pb2.SnapshotResponse:
        async with self._turn:
            files = self._data.snapshot(collection.name, name)
            if files.target.exists():
                raise AlreadyExistsError(f"collection {collection.name!r} has a snapshot {name!r}: {files.target}")
            started = time.perf_counter()
            try:
                entries = await collection.writer.run(partial(_pin_segments, collection, files.pinned))
                info = await asyncio.to_thread(_build, collection, name, files, entries, stop)
            except _StoppedError:
                raise UnavailableError("the snapshot was given up: its caller left, or the shard is stopping") from None
            except (OSError, sqlite3.Error) as error:
                if not collection.files.database.exists():
                    raise NotFoundError(f"collection {collection.name!r} was dropped") from None
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise DataLossError(f"the collection's database is damaged: {error}") from None
                raise UnavailableError(f"the shard's disk refuses, no snapshot was made: {error}") from None
            finally:
                await asyncio.to_thread(files.clean)
            seconds = time.perf_counter() - started
            metrics.SNAPSHOT_SECONDS.observe(seconds)
            size = await asyncio.to_thread(disk_bytes, files.target)
        path = str(files.target.absolute())
        log.info(
            "snapshot taken",
            collection=collection.name,
            path=path,
            generation=info.generation,
            bytes=size,
            seconds=round(seconds, 3),
        )
        return indexer_pb2.SnapshotResponse(path=path, generation=info.generation, bytes=size)


def load_snapshot_info(folder: Path) -> SnapshotInfo:
    """Reads what a snapshot says of itself.

    Raises:
        DamagedFileError: It is none, or damaged.
    """
    try:
        return SnapshotInfo.model_validate(read_checked(folder / _NAME, known_format=FORMAT))
    except FileNotFoundError:
        raise DamagedFileError("it has no snapshot.json, so it is no snapshot") from None
    except ValidationError as error:
        raise DamagedFileError(f"snapshot.json cannot be read: {error}") from None
    except (OSError, DamagedFileError) as error:
        raise DamagedFileError(f"snapshot.json: {error}") from None


def _pin_segments(collection: Collection, pinned: Path) -> list[SegmentEntry]:
    """Gives the segments being served a second name; runs on the writer thread, which alone removes segments."""
    entries = collection.segment_entries()
    pinned.mkdir()
    for entry in entries:
        _link_segment(collection.files.segments / entry.name, pinned / entry.name, entry)
    return entries


def _build(
    collection: Collection, name: str, files: SnapshotFiles, entries: list[SegmentEntry], stop: threading.Event
) -> SnapshotInfo:
    files.begin()
    segments = files.staged / SEGMENTS
    segments.mkdir()
    for entry in entries:
        _raise_if(stop)
        _link_segment(files.pinned / entry.name, segments / entry.name, entry)
        sync_directory(segments / entry.name)
    database = files.staged / DATABASE
    generation = _copy_database(collection.files.database, database, stop)
    info = SnapshotInfo(
        collection=collection.name,
        name=name,
        generation=generation,
        taken=datetime.now(UTC),
        database_sha256=sha256_of(database, partial(_raise_if, stop)),
    )
    save_manifest(files.staged, entries)
    write_checked(files.staged / _NAME, info.model_dump(mode="json"))
    for folder in (segments, files.staged):
        sync_directory(folder)
    _raise_if(stop)
    files.finish()
    return info


def _link_segment(source: Path, target: Path, entry: SegmentEntry) -> None:
    target.mkdir()
    for file in entry.checksums:
        link_or_copy(source / file, target / file)


def _copy_database(source: Path, target: Path, stop: threading.Event) -> int:
    """Copies a database as of its last commit; commits go on. Returns the copy's generation; on disk when it does."""
    reader = connect(source)
    writer = sqlite3.connect(target, isolation_level=None)
    try:
        # Nothing but the finished file counts, so nothing needs a journal.
        writer.execute("PRAGMA journal_mode=OFF")
        writer.execute("PRAGMA synchronous=OFF")
        # Held throughout: without it every commit meanwhile would make the copy start again.
        reader.execute("BEGIN")
        generation = int(reader.execute("SELECT generation FROM state").fetchone()[0])
        with target.open("rb") as copied:
            reader.backup(writer, pages=_PAGES_AT_A_TIME, progress=_Pace(copied.fileno(), stop))
            writer.close()
            os.fsync(copied.fileno())
    finally:
        writer.close()
        reader.close()
    return generation


class _Pace:
    """Called after each step of a copy: syncs, pauses, and ends it where nobody waits for it."""

    def __init__(self, handle: int, stop: threading.Event) -> None:
        self._handle = handle
        self._stop = stop
        self._steps = 0
        self._resumed = time.perf_counter()

    def __call__(self, status: int, remaining: int, total: int) -> None:
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_SYNCS == 0:
            os.fsync(self._handle)
        if remaining:
            self._stop.wait(time.perf_counter() - self._resumed)
        _raise_if(self._stop)
        self._resumed = time.perf_counter()


def _raise_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise _StoppedError
