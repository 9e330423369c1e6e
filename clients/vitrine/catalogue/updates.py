"""A file of new attribute values for products that are stored already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitrine.attributes import Value
from vitrine.catalogue.attributes import FieldError, check_types, parse_attributes
from vitrine.catalogue.columns import Column, ColumnType, TypeGuess
from vitrine.catalogue.products import ID_COLUMN, IMAGES_COLUMN
from vitrine.catalogue.table import CatalogueError, Problem, Row, Table
from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_id

IMAGE_COLUMN = "image_id"


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """What one row changes; `version` is the source time in milliseconds since 1970."""

    row: int
    product_id: str
    image_id: str
    """Empty: all images of the product."""
    set: Mapping[str, Value]
    unset: tuple[str, ...]
    version: int

    def problem(self, field: str, reason: str) -> Problem:
        """Returns what is wrong with this row."""
        return Problem(self.row, self.product_id, self.image_id, field, reason)


class AttributeFile:
    """A CSV file with `product_id`, if wanted `image_id`, and attribute columns of any name.

    A column `images` is passed over, so that a catalogue file will do. Reads the file twice, once for the types and
    once for the rows; memory holds one id a row.
    """

    def __init__(
        self,
        path: Path,
        *,
        types: Mapping[str, ColumnType] | None = None,
        version: int | None = None,
        unset_empty: bool = False,
    ) -> None:
        """Reads the header and infers the column types.

        Args:
            path: The file.
            types: Types of columns that shall not be inferred.
            version: Of every change; None: the time the file changed.
            unset_empty: An empty field removes the attribute; else it leaves it as it is.

        Raises:
            CatalogueError: The file cannot be used, has no attribute column, or `types` names one that is not there.
        """
        self.path = path
        self._table = Table(path, (ID_COLUMN,))
        self._unset_empty = unset_empty
        self._version = version if version is not None else path.stat().st_mtime_ns // 1_000_000
        names = [name for name in self._table.columns if name not in (ID_COLUMN, IMAGE_COLUMN, IMAGES_COLUMN)]
        if not names:
            raise CatalogueError(f"{path} has no attribute column; the columns are {', '.join(self._table.columns)}")
        check_types(path, names, types or {})
        self.rows = 0
        """Rows in the file."""
        self.columns = self._infer(names, types or {})

    def read(self) -> Iterator[AttributeChange | Problem]:
        """Yields every row in file order; those that cannot be used come as problems.

        Raises:
            CatalogueError: The file has changed into something that is no longer CSV.
        """
        seen: dict[tuple[str, str], int] = {}
        for row in self._table.rows():
            key = row.fields.get(ID_COLUMN, ""), row.fields.get(IMAGE_COLUMN, "")
            if row.problem is not None:
                yield _problem(row, *row.problem)
            elif key in seen:
                yield _problem(row, ID_COLUMN, f"the same key as row {seen[key]}, which is kept")
            else:
                seen[key] = row.number
                yield self._change(row, *key)

    def _infer(self, names: list[str], types: Mapping[str, ColumnType]) -> list[Column]:
        guesses = {name: TypeGuess() for name in names if name not in types}
        for row in self._table.rows():
            self.rows += 1
            if row.problem is None:
                for name, guess in guesses.items():
                    guess.add(row.number, row.fields[name])
        return [guesses[name].column(name) if name in guesses else Column(name, types[name]) for name in names]

    def _change(self, row: Row, product_id: str, image_id: str) -> AttributeChange | Problem:
        try:
            check_id(product_id, ID_COLUMN)
            if image_id:
                check_id(image_id, IMAGE_COLUMN)
            values = parse_attributes(self.columns, row.fields)
        except InvalidArgumentError as error:
            return _problem(row, error.violations[0].field, error.message)
        except FieldError as error:
            return _problem(row, error.field, error.reason)
        empty = tuple(each.name for each in self.columns if each.name not in values) if self._unset_empty else ()
        return AttributeChange(row.number, product_id, image_id, values, empty, self._version)


def _problem(row: Row, field: str, reason: str) -> Problem:
    product_id, image_id = (
        row.fields.get(name, "").encode(errors="backslashreplace").decode() for name in (ID_COLUMN, IMAGE_COLUMN)
    )
    return Problem(row.number, product_id, image_id, field, reason)
