"""A CSV file as numbered rows of text: what RFC 4180 and spreadsheets agree on, in UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAX_FIELD_CHARACTERS = 2**20


class CatalogueError(Exception):
    """The file as a whole cannot be used; the message names the file and what to change."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row (or one image of it) that cannot be used, and why."""

    row: int
    """As spreadsheets count: the header is row 1."""
    product_id: str
    image: str
    """As the row names it; empty where the whole row is meant."""
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row by column name; `problem` says why they cannot be trusted."""

    number: int
    fields: dict[str, str]
    problem: tuple[str, str] | None = None
    """Field and reason."""


class Table:
    """A CSV file with a header: comma separated, UTF-8 with or without a byte order mark, any line ends."""

    def __init__(self, path: Path, required: Sequence[str]) -> None:
        """Reads and checks the header.

        Raises:
            CatalogueError: The file cannot be opened, is not UTF-8, or its header is unusable or lacks a
                required column.
        """
        self.path = path
        records = self._records()
        try:
            header = next(records, None)
        finally:
            records.close()
        if header is None:
            raise CatalogueError(f"{path} is empty; its first line must name the columns")
        if not header:
            raise CatalogueError(f"{path}: the first line is empty; it must name the columns")
        self.columns = [name.strip() for name in header]
        self._check_header(required)

    def rows(self) -> Iterator[Row]:
        """Yields the rows in file order, blank ones left out.

        Raises:
            CatalogueError: From some row on the file is not CSV.
        """
        records = self._records()
        next(records)
        for number, record in enumerate(records, start=2):
            if not any(field.strip() for field in record):
                continue
            yield self._row(number, record)

    def _row(self, number: int, record: list[str]) -> Row:
        fields = dict(zip(self.columns, (field.strip() for field in record), strict=False))
        if len(record) != len(self.columns):
            reason = f"the row has {len(record)} fields, the header has {len(self.columns)}"
            return Row(number, fields, ("", reason))
        for name, value in fields.items():
            if not _is_text(value):
                return Row(number, fields, (name, "not UTF-8; save the file as UTF-8"))
        return Row(number, fields)

    def _records(self) -> Generator[list[str], None, None]:
        try:
            with self.path.open("rb") as binary:
                if binary.read(2) in _UTF16_MARKS:
                    raise CatalogueError(f"{self.path} is UTF-16; save it as CSV in UTF-8")
            # Bytes that are no UTF-8 survive as surrogates, so that they cost their own row only.
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as source:
                csv.field_size_limit(_MAX_FIELD_CHARACTERS)
                yield from self._parse(source)
        except OSError as error:
            raise CatalogueError(f"{self.path}: {error.strerror or error}") from None

    def _parse(self, source: Iterator[str]) -> Iterator[list[str]]:
        reader = csv.reader(source, strict=True)
        number, line = 1, 1
        try:
            for record in reader:
                yield record
                number, line = number + 1, reader.line_num + 1
        except csv.Error as error:
            raise CatalogueError(
                f"{self.path}: row {number}, which starts at line {line}, is not CSV: {error}. "
                "A quote inside a field must be doubled, and the field quoted"
            ) from None

    def _check_header(self, required: Sequence[str]) -> None:
        there = ", ".join(repr(name) for name in self.columns)
        for position, name in enumerate(self.columns, start=1):
            if not name:
                raise CatalogueError(f"{self.path}: column {position} of {len(self.columns)} has no name")
            if not _is_text(name):
                raise CatalogueError(f"{self.path}: the name of column {position} is not UTF-8; save the file as UTF-8")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise CatalogueError(f"{self.path}: column {twice[0]!r} is there twice; the columns are {there}")
        missing = [name for name in required if name not in self.columns]
        if missing:
            message = f"{self.path} has no column {missing[0]!r}; the columns are {there}"
            if len(self.columns) == 1 and (mark := next((each for each in ";\t|" if each in self.columns[0]), None)):
                message += f" (separated by {mark!r}? Fields must be separated by commas)"
            raise CatalogueError(message)


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= character <= "\udcff" for character in value)
