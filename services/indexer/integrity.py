"""What reading a collection's database would not notice: damaged indexes, and a damaged end of its write-ahead log.

Rows carry checksums of their own. But a lookup by key trusts an index; and SQLite takes the first frame of the log that
fails its checksum for the end of the log, which after a power failure is right, and after damage loses all commits
behind it without a word.
"""

from __future__ import annotations

import mmap
import sqlite3
import struct
from pathlib import Path

import structlog

from services.indexer.schema import checksum_of_state, checksum_of_tombstone, connect
from vitrine.errors import DataLossError

_TABLES = ("state", "points", "tombstones")
_FIRST_WITH_CHECKSUMS = 2  # of `state` and `tombstones`

# https://www.sqlite.org/fileformat2.html#walformat and, for the shared memory, https://www.sqlite.org/walformat.html
_WAL_MAGIC = 0x377F0682  # its last bit says that checksums are of big-endian words
_WAL_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, salts, checksums
_FRAME_HEADER = struct.Struct(">6I")  # page, size of the database after a commit (else 0), salts, checksums
_FRAMES_READ_OFFSET = 16

log = structlog.get_logger()

_Checksum = tuple[int, int]


def check_database(database: Path) -> None:
    """Checks a database that no process has open.

    Raises:
        DataLossError: It is damaged.
    """
    wal = database.with_name(database.name + "-wal")
    try:
        connection = connect(database)
        try:
            connection.execute("SELECT generation FROM state").fetchone()  # makes SQLite read the log
            if wal.exists():
                _check_log(wal, database.with_name(database.name + "-shm"))
            for table in _TABLES:
                [(verdict,), *_] = connection.execute(f"PRAGMA integrity_check({table})").fetchall()
                if verdict != "ok":
                    raise DataLossError(f"{database} is damaged: {verdict}")
            _check_rows(connection, database)
        finally:
            connection.close()
    except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
        raise DataLossError(f"{database} cannot be read: {error}") from None


def _check_rows(connection: sqlite3.Connection, database: Path) -> None:
    """Checks the rows that nobody checks when they are read."""
    if connection.execute("PRAGMA user_version").fetchone() < (_FIRST_WITH_CHECKSUMS,):
        return
    for query, checksum_of in (
        ("SELECT checksum, spec, generation, next_label FROM state", checksum_of_state),
        ("SELECT checksum, product_id, image_id, version FROM tombstones", checksum_of_tombstone),
    ):
        for checksum, *values in connection.execute(query):
            try:
                healthy = checksum == checksum_of(*values)
            except TypeError:  # of another type than was written
                healthy = False
            if not healthy:
                raise DataLossError(f"{database} is damaged: a row of {query.split()[-1]} fails its checksum")


class _Log:
    """A write-ahead log, frame by frame, as it lies on disk."""

    def __init__(self, content: mmap.mmap) -> None:
        """`content` holds the header at least."""
        magic, _, page_bytes, _, *words = _WAL_HEADER.unpack_from(content)
        self._content = content
        self._big_endian = bool(magic & 1)
        self._frame_bytes = _FRAME_HEADER.size + page_bytes
        self.salts = (words[0], words[1])
        self.healthy = magic & ~1 == _WAL_MAGIC and self._add((0, 0), content[:24]) == (words[2], words[3])
        self.frames = (len(content) - _WAL_HEADER.size) // self._frame_bytes

    def belongs(self, frame: int) -> bool:
        """Says whether a frame carries the log's salts; others are left from the time before its last restart."""
        return self._header(frame)[1] == self.salts

    def commits(self, frame: int) -> bool:
        """Says whether a frame ends a commit."""
        return self._header(frame)[0]

    def follows(self, frame: int) -> bool:
        """Says whether a frame is whole, and was written after the one before it."""
        start = _WAL_HEADER.size + frame * self._frame_bytes
        page = start + _FRAME_HEADER.size
        covered = self._content[start : start + 8] + self._content[page : start + self._frame_bytes]
        return self._add(self._header(frame - 1)[2], covered) == self._header(frame)[2]

    def _header(self, frame: int) -> tuple[bool, tuple[int, int], _Checksum]:
        start = _WAL_HEADER.size + frame * self._frame_bytes
        _, size, *words = _FRAME_HEADER.unpack_from(self._content, start)
        return size > 0, (words[0], words[1]), (words[2], words[3])

    def _add(self, checksum: _Checksum, data: bytes) -> _Checksum:
        """Returns SQLite's checksum of `data` (a multiple of 8 bytes), on top of that of what came before."""
        first, second = checksum
        words = struct.unpack(f"{'>' if self._big_endian else '<'}{len(data) // 4}I", data)
        for index in range(0, len(words), 2):
            first = (first + words[index] + second) & 0xFFFFFFFF
            second = (second + words[index + 1] + first) & 0xFFFFFFFF
        return first, second


def _check_log(wal: Path, shared: Path) -> None:
    """Compares how far SQLite could read the log with what lies behind.

    A commit is on disk before the next one writes its first frame. So a whole frame that follows a commit frame, behind
    the end that SQLite found, says that the end is damage. Anything else behind it may be a commit that was cut short.
    """
    if wal.stat().st_size < _WAL_HEADER.size + _FRAME_HEADER.size:
        return
    with wal.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not any(content[: _WAL_HEADER.size]):  # made longer, but never written: the power failed
            return
        written = _Log(content)
        if not written.healthy:
            raise DataLossError(f"{wal} is damaged: the checksum of its header is wrong")
        [read] = struct.unpack_from("=I", shared.read_bytes(), _FRAMES_READ_OFFSET)
        ours = [frame for frame in range(read, written.frames) if written.belongs(frame)]
        for frame in ours:
            if frame > read and written.belongs(frame - 1) and written.commits(frame - 1) and written.follows(frame):
                raise DataLossError(f"{wal} is damaged behind frame {read}: commits after it would be lost")
    if ours:
        log.warning("the end of the log is no whole commit: ignored", file=str(wal), frames=len(ours))
