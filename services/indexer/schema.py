"""The tables of one collection's database."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

from services.indexer.records import Record
from vitrine.v1 import indexer_pb2

SCHEMA_VERSION = 2

# Labels name rows of vectors and are never used twice: a point that is written again gets a new one, so that a label
# found in a segment that was built earlier can be dead, but never somebody else. Vectors have a table of their own,
# so that keys and attributes can be read without paging through them. `newer` says which attributes an update has set
# (or removed) since the point was written, as JSON from name to version; mostly NULL.
_SCHEMA = """
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    spec BLOB NOT NULL,
    generation INTEGER NOT NULL,
    next_label INTEGER NOT NULL,
    checksum INTEGER
);
CREATE TABLE points (
    label INTEGER PRIMARY KEY,
    product_id TEXT NOT NULL,
    image_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    payload BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    newer TEXT,
    UNIQUE (product_id, image_id)
);
CREATE TABLE vectors (
    label INTEGER PRIMARY KEY,
    vector BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
-- An empty image_id is a delete of the whole product.
CREATE TABLE tombstones (
    product_id TEXT NOT NULL,
    image_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (product_id, image_id)
) WITHOUT ROWID;
"""


def create_database(path: Path, spec: indexer_pb2.CollectionSpec) -> None:
    """Creates the database of an empty collection; on disk when it returns."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA page_size=8192")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
        stored = spec.SerializeToString()
        connection.execute("INSERT INTO state VALUES (1, ?, 0, 1, ?)", (stored, checksum_of_state(stored, 0, 1)))
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    finally:
        connection.close()  # the last connection moves the log into the database file and syncs it


def upgrade(connection: sqlite3.Connection) -> None:
    """Brings a database of format 1 to the present one, all or nothing; others stay as they are."""
    if connection.execute("PRAGMA user_version").fetchone() == (1,):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ALTER TABLE points ADD COLUMN newer TEXT")
        connection.create_function("checksum_of_state", 3, checksum_of_state)
        connection.create_function("checksum_of_tombstone", 3, checksum_of_tombstone)
        connection.execute("ALTER TABLE state ADD COLUMN checksum INTEGER")
        connection.execute("UPDATE state SET checksum = checksum_of_state(spec, generation, next_label)")
        connection.execute("ALTER TABLE tombstones ADD COLUMN checksum INTEGER")
        connection.execute("UPDATE tombstones SET checksum = checksum_of_tombstone(product_id, image_id, version)")
        connection.execute("PRAGMA user_version=2")
        connection.execute("COMMIT")


def connect(path: Path, *, writer: bool = False) -> sqlite3.Connection:
    """Opens a database; a writer's commits are on disk when they return.

    Raises:
        sqlite3.OperationalError: There is none.
    """
    mode = "rw" if writer else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=30.0
    )
    if writer:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


def checksum_of_record(record: Record, newer: str | None) -> int:
    """Returns the crc32 kept beside a point."""
    head = f"{record.product_id}\0{record.image_id}\0{record.version}\0{newer or ''}"
    return zlib.crc32(record.payload, zlib.crc32(head.encode()))


def checksum_of_vector(label: int, vector: bytes) -> int:
    """Returns the crc32 kept beside a vector."""
    return zlib.crc32(vector, zlib.crc32(label.to_bytes(8, "little")))


def checksum_of_state(spec: bytes, generation: int, next_label: int) -> int:
    """Returns the crc32 kept beside a collection's state."""
    return zlib.crc32(spec, zlib.crc32(f"{generation}\0{next_label}\0".encode()))


def checksum_of_tombstone(product_id: str, image_id: str, version: int) -> int:
    """Returns the crc32 kept beside a tombstone."""
    return zlib.crc32(f"{product_id}\0{image_id}\0{version}".encode())
