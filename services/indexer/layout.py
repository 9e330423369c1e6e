"""Where things lie on disk.

    data_dir/LOCK               held by the one process that uses the folder
    data_dir/format.json        version of this layout
    data_dir/collections/NAME.ID/points.db      the truth (SQLite)
    data_dir/collections/NAME.ID/manifest.json  which segments count
    data_dir/collections/NAME.ID/segments/      one folder each
    data_dir/scratch/           unfinished or dropped; emptied at start

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


class CollectionFiles:
    """The paths of one collection."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self.directory = directory
        self.database = directory / "points.db"
        self.segments = directory / "segments"
        self.scratch = scratch


class DataDir:
    """The data folder of one shard, locked against other processes until `close`."""

    def __init__(self, path: Path) -> None:
        """Opens the folder, creating it where it is missing.

        Raises:
            StartError: It cannot be used, another process uses it, or it was written by another version.
        """
        self.path = path
        self._collections = path / "collections"
        self._scratch = path / "scratch"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
            _check_format(path)
            remove_tree(self._scratch)
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

    def create(self, spec: indexer_pb2.CollectionSpec) -> CollectionFiles:
        """Creates an empty collection; all of it or nothing is on disk when it returns."""
        folder = f"{spec.name}.{uuid.uuid4().hex[:12]}"
        staged = self._scratch / folder
        staged.mkdir()
        create_database(staged / "points.db", spec)
        sync_directory(staged)
        target = self._collections / folder
        staged.rename(target)
        sync_directory(self._collections)
        return CollectionFiles(target, self._scratch)

    def drop(self, files: CollectionFiles) -> Path:
        """Makes a collection gone, durably; returns the folder that is left to remove."""
        doomed = self._scratch / files.directory.name
        files.directory.rename(doomed)
        sync_directory(self._collections)
        return doomed

    def close(self) -> None:
        """Lets another process use the folder."""
        self._lock.close()


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
    except (ValueError, KeyError, TypeError):
        raise StartError(f"{file} is damaged") from None
    if version != FORMAT:
        raise StartError(f"data_dir {path} has format {version}, this program knows {FORMAT}")
