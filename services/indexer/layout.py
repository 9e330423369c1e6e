"""Where things lie on disk.

    data_dir/LOCK               held by the one process that uses the folder
    data_dir/format.json        version of this layout
    data_dir/aliases.json       which alias points at which collection
    data_dir/collections/NAME.ID/points.db      the truth (SQLite)
    data_dir/collections/NAME.ID/manifest.json  which segments count
    data_dir/collections/NAME.ID/segments/      one folder each
    data_dir/collections/NAME.ID/text/          the words of its products (SQLite); derived, in no snapshot
    data_dir/snapshots/COLLECTION.NAME/         finished copies of a collection; never read while serving
    data_dir/snapshots/.unfinished/             those under way; emptied at start
    data_dir/scratch/           unfinished or dropped; emptied at start

`snapshots` may be a mount (or a link to one) of another file system; everything else must share one.

ID is new for each creation: SQLite finds its log by path, so a path must never be reused while the database that had
it before may still be open.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from pathlib import Path
from typing import IO

from services.indexer.files import remove_tree, sync_directory, write_atomically
from services.indexer.schema import create_database
from services.runtime.server import StartError
from vitrine.v1 import indexer_pb2

FORMAT = 1
DATABASE = "points.db"
SEGMENTS = "segments"


class CollectionFiles:
    """The paths of one collection."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory = directory
        self.database = directory / DATABASE
        self.segments = directory / SEGMENTS
        self.scratch = scratch


class SnapshotFiles:
    """The paths of one snapshot: complete, in the making, and where the segments that it needs are held meanwhile."""

    def __init__(self, target: Path, staged: Path, pinned: Path) -> None:
        self.target = target
        self.staged = staged
        self.pinned = pinned

    def begin(self) -> None:
        """Makes the folder to build in.

        Raises:
            OSError: The disk refuses.
        """
        self.staged.mkdir(parents=True)

    def finish(self) -> None:
        """Makes what was built, its files on disk, the snapshot; on disk when it returns.

        Raises:
            OSError: The disk refuses, or there is one by now.
        """
        self.staged.rename(self.target)
        for folder in (self.target.parent, self.target.parent.parent):
            sync_directory(folder)

    def clean(self) -> None:
        """Removes what is not part of a finished snapshot."""
        for folder in (self.staged, self.pinned):
            remove_tree(folder)


class DataDir:
    """The data folder of one shard, locked against other processes until `close`."""

    def __init__(self, path: Path) -> None:
        """Opens the folder, creating it where it is missing.

        Raises:
            StartError: It cannot be used, another process uses it, or it was written by another version.
        """
        self.path = path
        self.aliases = path / "aliases.json"
        self._collections = path / "collections"
        self._scratch = path / "scratch"
        self._snapshots = path / "snapshots"
        self._unfinished = self._snapshots / ".unfinished"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
            _check_format(path)
            for folder in (self._scratch, self._unfinished):
                remove_tree(folder)
            for folder in (self._collections, self._scratch):
                folder.mkdir(exist_ok=True)
            sync_directory(path)
        except OSError as error:
            raise StartError(f"data_dir {path} cannot be used: {error}") from None

    def collections(self) -> list[CollectionFiles]:
        """Returns what is stored, by name.

        Raises:
            StartError: Two folders claim one name.
        """
        found = sorted(each for each in self._collections.iterdir() if each.is_dir())
        names = [_name_of(each) for each in found]
        for name in names:
            if names.count(name) > 1:
                raise StartError(f"{self._collections} has more than one folder of collection {name}")
        return [CollectionFiles(each, self._scratch) for each in found]

    def holds(self, name: str) -> bool:
        """Says whether a collection of that name is stored."""
        return any(_name_of(each.directory) == name for each in self.collections())

    def stage(self, name: str) -> Path:
        """Returns a new folder to build a collection in; a crash before `install` leaves nothing of it."""
        staged = self._scratch / f"{name}.{_new_id()}"
        staged.mkdir()
        return staged

    def install(self, staged: Path) -> CollectionFiles:
        """Makes a folder of `stage`, whose files are on disk, a collection; on disk when it returns."""
        sync_directory(staged)
        target = self._collections / staged.name
        staged.rename(target)
        sync_directory(self._collections)
        return CollectionFiles(target, self._scratch)

    def create(self, spec: indexer_pb2.CollectionSpec) -> CollectionFiles:
        """Creates an empty collection; all of it or nothing is on disk when it returns."""
        staged = self.stage(spec.name)
        try:
            create_database(staged / DATABASE, spec)
            return self.install(staged)
        except BaseException:
            remove_tree(staged)
            raise

    def snapshot(self, collection: str, name: str) -> SnapshotFiles:
        """Returns the paths of a snapshot to take; nothing is made yet."""
        unique = f"{collection}.{name}.{_new_id()}"
        return SnapshotFiles(
            self._snapshots / f"{collection}.{name}", self._unfinished / unique, self._scratch / unique
        )

    def drop(self, files: CollectionFiles) -> Path:
        """Makes a collection gone, durably; returns the folder that is left to remove."""
        doomed = self._scratch / files.directory.name
        files.directory.rename(doomed)
        sync_directory(self._collections)
        return doomed

    def close(self) -> None:
        """Lets another process use the folder."""
        self._lock.close()


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _name_of(folder: Path) -> str:
    return folder.name.partition(".")[0]


def _lock(path: Path) -> IO[str]:
    handle = (path / "LOCK").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        handle.close()
        raise StartError(f"data_dir {path} is used by another process (pid {owner})") from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _check_format(path: Path) -> None:
    file = path / "format.json"
    if not file.exists():
        if (path / "collections").exists():
            raise StartError(f"data_dir {path} has collections but no format.json; restore it before starting")
        write_atomically(file, json.dumps({"format": FORMAT}).encode())
        return
    try:
        version = json.loads(file.read_bytes())["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StartError(f"{file} is damaged") from None
    if version != FORMAT:
        raise StartError(f"data_dir {path} has format {version}, this program knows {FORMAT}")
