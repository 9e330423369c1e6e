"""The attribute columns of a row, as typed values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vitrine.attributes import Value
from vitrine.catalogue.columns import Column, ColumnType
from vitrine.catalogue.table import CatalogueError


class FieldError(Exception):
    """A field that is not of its column's type."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def check_types(path: Path, names: Sequence[str], types: Mapping[str, ColumnType]) -> None:
    """Raises CatalogueError where a type is given for a column that is not among `names`."""
    for name in types:
        if name not in names:
            raise CatalogueError(f"{path} has no attribute column {name!r}; there are {', '.join(names) or 'none'}")


def parse_attributes(columns: Iterable[Column], fields: Mapping[str, str]) -> dict[str, Value]:
    """Returns the values of a row by column name, without those of empty fields.

    Raises:
        FieldError: A field is not of its column's type.
    """
    attributes: dict[str, Value] = {}
    for column in columns:
        text = fields[column.name]
        if not text:
            continue
        try:
            attributes[column.name] = column.type.parse(text)
        except ValueError as error:
            raise FieldError(column.name, str(error)) from None
    return attributes
