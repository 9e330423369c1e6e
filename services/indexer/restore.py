"""`python -m services.indexer.restore SNAPSHOT --data-dir DIR [--as NAME]` puts a snapshot back into a stopped shard.

Everything is checked before it counts: the database against the snapshot's checksum, SQLite's own check and the
checksum of every row; each segment against the manifest. A damaged database is refused; a damaged segment is left out,
and the shard builds it again from the database.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from services.indexer.aliases import Aliases
from services.indexer.files import DamagedFileError, link_or_copy, remove_tree, sha256_of, sync_directory, sync_file
from services.indexer.integrity import check_database
from services.indexer.layout import CollectionFiles, DataDir
from services.indexer.manifest import DamagedManifestError, SegmentEntry, load_manifest, save_manifest
from services.indexer.schema import checksum_of_state, connect
from services.indexer.snapshots import SnapshotInfo, load_snapshot_info
from services.indexer.store import Store
from services.runtime.server import StartError
from vitrine.errors import VitrineError
from vitrine.keys import check_collection_name
from vitrine.v1 import indexer_pb2

Report = Callable[[str], None]

_SECONDS_BETWEEN_LINES = 2.0


class RestoreError(Exception):
    """The snapshot was not restored, and the data folder is as before; the message says why."""


def restore_snapshot(snapshot: Path, data: DataDir, name: str | None, report: Report) -> str:
    """Restores a snapshot as a collection; on disk, all of it or nothing, when it returns.

    Args:
        snapshot: Folder of the snapshot; only read. Where it shares a file system with `data`, segments are linked.
        data: Of a shard that is not running.
        name: Of the collection; None: its name when the snapshot was taken.
        report: Gets lines that say how far it has come.

    Returns:
        The name.

    Raises:
        RestoreError: The snapshot is damaged or of another version, or the name is taken.
        OSError: A disk refuses.
    """
    try:
        info = load_snapshot_info(snapshot)
        name = name or info.collection
        check_collection_name(name, "--as")
    except (DamagedFileError, VitrineError) as error:
        raise RestoreError(f"{snapshot}: {error}") from None
    report(f"snapshot {info.name!r} of collection {info.collection!r}, taken {info.taken:%Y-%m-%d %H:%M:%S} UTC")
    _check_free(data, name)
    staged = data.stage(name)
    try:
        source, target = CollectionFiles(snapshot, snapshot), CollectionFiles(staged, staged)
        _copy_database(source.database, target.database, info, report)
        spec, points = _check_database(target.database, info, name, report)
        entries = _copy_segments(source, target, report)
        save_manifest(staged, entries)
        data.install(staged)
    finally:
        remove_tree(staged)
    report(
        f"restored as {name!r} (shard {spec.shard_index} of {spec.shard_count}): {points:,} points, {len(entries)} "
        f"segments, generation {info.generation}; start the shard to serve it"
    )
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m services.indexer.restore", description="Puts a snapshot back into the data of a stopped shard."
    )
    parser.add_argument("snapshot", type=Path, help="folder of the snapshot, DATA_DIR/snapshots/COLLECTION.NAME")
    parser.add_argument("--data-dir", type=Path, required=True, help="data folder of the shard; made where missing")
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of the collection; default: as it was")
    given = parser.parse_args(arguments)
    try:
        data = DataDir(given.data_dir)
        try:
            restore_snapshot(given.snapshot, data, given.name, lambda line: print(line, flush=True))
        finally:
            data.close()
    except (StartError, RestoreError, OSError, sqlite3.Error) as error:
        print(f"not restored: {error}", file=sys.stderr)
        return 2
    return 0


def _check_free(data: DataDir, name: str) -> None:
    if data.holds(name):
        raise RestoreError(
            f"collection {name!r} exists in {data.path}; drop it, move its folder away, or take another name: --as"
        )
    target = Aliases(data.aliases).target(name)
    if target is not None:
        raise RestoreError(f"{name!r} is an alias of {target!r} in {data.path}; choose another name with --as")


def _copy_database(source: Path, target: Path, info: SnapshotInfo, report: Report) -> None:
    # Never linked: the shard writes to it.
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        raise RestoreError(f"{source} is missing") from None
    sync_file(target)
    if sha256_of(target) != info.database_sha256:
        raise RestoreError(f"{source} fails its checksum: it is damaged")
    report(f"database: {target.stat().st_size / 2**20:,.1f} MiB copied, its checksum is right")


def _check_database(
    database: Path, info: SnapshotInfo, name: str, report: Report
) -> tuple[indexer_pb2.CollectionSpec, int]:
    """Reads everything that is stored, with all checks there are, and gives the collection its name.

    The snapshot's checksum says that the copy is what the shard had; this says that what the shard had was right.
    """
    try:
        check_database(database)
        connection = connect(database, writer=True)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            [(verdict,), *_] = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if verdict != "ok":
                raise RestoreError(f"the database was damaged when the snapshot was taken: {verdict}")
            [(stored, *state)] = connection.execute("SELECT spec, generation, next_label FROM state").fetchall()
            spec = indexer_pb2.CollectionSpec.FromString(stored)
            if spec.name != info.collection:
                raise RestoreError(f"the database is of collection {spec.name!r}, not of {info.collection!r}")
            spec.name = name
            renamed = spec.SerializeToString()
            connection.execute("UPDATE state SET spec = ?, checksum = ?", (renamed, checksum_of_state(renamed, *state)))
        finally:
            connection.close()
        return spec, _check_rows(database, info, report)
    except (sqlite3.DatabaseError, VitrineError) as error:
        raise RestoreError(f"the database was damaged when the snapshot was taken: {error}") from None


def _check_rows(database: Path, info: SnapshotInfo, report: Report) -> int:
    store = Store(database)
    try:
        if store.generation != info.generation:
            raise RestoreError(f"the database has generation {store.generation}, the snapshot says {info.generation}")
        points, reported = 0, time.monotonic()
        with store.reader() as reader:
            for rows in reader.all():
                for label, _ in rows:
                    reader.vector(label)
                points += len(rows)
                if time.monotonic() - reported > _SECONDS_BETWEEN_LINES:
                    report(f"database: {points:,} points checked")
                    reported = time.monotonic()
    finally:
        store.close()
    report(f"database: all {points:,} points are right")
    return points


def _copy_segments(source: CollectionFiles, target: CollectionFiles, report: Report) -> list[SegmentEntry]:
    """Links or copies the healthy segments; returns their entries."""
    try:
        listed = load_manifest(source.directory)
    except DamagedManifestError as error:
        report(f"WARNING: the list of segments is damaged ({error}); the shard builds all of them again")
        listed = []
    target.segments.mkdir()
    healthy = []
    for entry in listed:
        folder = target.segments / entry.name
        try:
            _copy_segment(source.segments / entry.name, folder, entry)
        except (DamagedFileError, FileNotFoundError) as error:
            remove_tree(folder)
            report(f"WARNING: segment {entry.name} is left out, the shard builds it again: {error}")
        else:
            healthy.append(entry)
    sync_directory(target.segments)
    report(f"segments: {len(healthy)} of {len(listed)} copied, their checksums are right")
    return healthy


def _copy_segment(source: Path, target: Path, entry: SegmentEntry) -> None:
    target.mkdir()
    for file, checksum in entry.checksums.items():
        link_or_copy(source / file, target / file)
        if sha256_of(target / file) != checksum:
            raise DamagedFileError(f"{source / file} fails its checksum")
    sync_directory(target)


if __name__ == "__main__":
    sys.exit(main())
