"""A catalogue file as product images with typed attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitrine.attributes import Value
from vitrine.catalogue.attributes import FieldError, check_types, parse_attributes
from vitrine.catalogue.columns import Column, ColumnType, TypeGuess, split_list
from vitrine.catalogue.table import Problem, Row, Table
from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_id

ID_COLUMN = "product_id"
IMAGES_COLUMN = "images"


@dataclass(frozen=True, slots=True)
class ProductImage:
    """One image of one product: a point to be. `version` is the source time in milliseconds since 1970."""

    row: int
    product_id: str
    image_id: str
    name: str
    """The image as the row names it."""
    path: Path
    attributes: Mapping[str, Value]
    version: int

    @property
    def uri(self) -> str:
        """Where the picture is, as an absolute file URI."""
        return self.path.as_uri()

    def problem(self, field: str, reason: str) -> Problem:
        """Returns what is wrong with this image."""
        return Problem(self.row, self.product_id, self.name, field, reason)


class Catalogue:
    """A CSV file with one product a row: `product_id`, `images` (paths relative to the file, separated by `;`), and
    attribute columns of any name.

    Reads the file twice, once for the types and once for the rows; memory holds one id a product.
    """

    def __init__(
        self, path: Path, *, types: Mapping[str, ColumnType] | None = None, version: int | None = None
    ) -> None:
        """Reads the header and infers the column types.

        Args:
            path: The file.
            types: Types of columns that shall not be inferred.
            version: Of every image; None: the time the image or the catalogue file changed, whichever is later.

        Raises:
            CatalogueError: The file cannot be used, or `types` names a column that is not there.
        """
        self.path = path
        self._table = Table(path, (ID_COLUMN, IMAGES_COLUMN))
        self._version = version
        self._changed_ns = path.stat().st_mtime_ns
        names = [name for name in self._table.columns if name not in (ID_COLUMN, IMAGES_COLUMN)]
        check_types(path, names, types or {})
        self.products = 0
        """Rows in the file."""
        self.images = 0
        """Images that the rows name."""
        self.columns = self._infer(names, types or {})

    def read(self) -> Iterator[ProductImage | Problem]:
        """Yields every image in file order; rows and images that cannot be used come as problems.

        Raises:
            CatalogueError: The file has changed into something that is no longer CSV.
        """
        seen: dict[str, int] = {}
        for row in self._table.rows():
            problem = self._check(row, seen)
            if problem is not None:
                yield problem
                continue
            seen[row.fields[ID_COLUMN]] = row.number
            try:
                attributes = parse_attributes(self.columns, row.fields)
            except FieldError as error:
                yield self._problem(row, error.field, error.reason)
                continue
            yield from self._images(row, attributes)

    def _infer(self, names: list[str], types: Mapping[str, ColumnType]) -> list[Column]:
        guesses = {name: TypeGuess() for name in names if name not in types}
        for row in self._table.rows():
            self.products += 1
            self.images += len(split_list(row.fields.get(IMAGES_COLUMN, "")))
            if row.problem is None:
                for name, guess in guesses.items():
                    guess.add(row.number, row.fields[name])
        return [guesses[name].column(name) if name in guesses else Column(name, types[name]) for name in names]

    def _check(self, row: Row, seen: Mapping[str, int]) -> Problem | None:
        if row.problem is not None:
            return self._problem(row, *row.problem)
        product_id = row.fields[ID_COLUMN]
        if not product_id:
            return self._problem(row, ID_COLUMN, "empty")
        try:
            check_id(product_id, ID_COLUMN)
        except InvalidArgumentError as error:
            return self._problem(row, ID_COLUMN, error.message)
        if product_id in seen:
            return self._problem(row, ID_COLUMN, f"the same product_id as row {seen[product_id]}, which is kept")
        return None

    def _images(self, row: Row, attributes: dict[str, Value]) -> Iterator[ProductImage | Problem]:
        names = split_list(row.fields[IMAGES_COLUMN])
        if not names:
            yield self._problem(row, IMAGES_COLUMN, "no image")
            return
        # The short id where it is unique within the product, as it nearly always is; `red/1.jpg;blue/1.jpg` is not.
        stems = Counter(Path(name).stem for name in dict.fromkeys(names))
        by_stem = max(stems.values()) == 1
        seen: set[str] = set()
        for name in names:
            image_id = Path(name).stem if by_stem else name
            if name in seen:
                yield self._problem(row, IMAGES_COLUMN, "listed twice in this row", name)
                continue
            seen.add(name)
            yield self._image(row, name, image_id, attributes)

    def _image(self, row: Row, name: str, image_id: str, attributes: dict[str, Value]) -> ProductImage | Problem:
        path = Path(self.path.parent, name).absolute()
        try:
            check_id(image_id, "image_id")
            changed_ns = path.stat().st_mtime_ns
        except InvalidArgumentError as error:
            return self._problem(row, IMAGES_COLUMN, error.message, name)
        except OSError as error:
            return self._problem(row, IMAGES_COLUMN, f"{error.strerror or error}: {path}", name)
        except ValueError as error:  # a NUL in the name
            return self._problem(row, IMAGES_COLUMN, str(error), name)
        if not path.is_file():
            return self._problem(row, IMAGES_COLUMN, f"not a file: {path}", name)
        version = self._version if self._version is not None else max(changed_ns, self._changed_ns) // 1_000_000
        return ProductImage(row.number, row.fields[ID_COLUMN], image_id, name, path, attributes, version)

    @staticmethod
    def _problem(row: Row, field: str, reason: str, image: str = "") -> Problem:
        product_id = row.fields.get(ID_COLUMN, "").encode(errors="backslashreplace").decode()
        return Problem(row.number, product_id, image, field, reason)
