"""A query set: photos with the product each shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitrine.catalogue.table import CatalogueError, Table

DEFAULT_KIND = "all"


@dataclass(frozen=True, slots=True)
class QueryPhoto:
    """One photo, the product that is right for it, and the kind of photo it is."""

    row: int
    path: Path
    product_id: str
    kind: str


def read_queries(path: Path) -> list[QueryPhoto]:
    """Reads a CSV file with the columns `image` (relative to the file), `product_id` and, if there, `kind`.

    Raises:
        CatalogueError: The file or one of its rows cannot be used. Queries are a yardstick: none is left out.
    """
    table = Table(path, ("image", "product_id"))
    queries = []
    for row in table.rows():
        if row.problem is not None:
            field, reason = row.problem
            raise CatalogueError(f"{path}, row {row.number}: {f'{field}: ' if field else ''}{reason}")
        for name in ("image", "product_id"):
            if not row.fields[name]:
                raise CatalogueError(f"{path}, row {row.number}: {name} is empty")
        queries.append(
            QueryPhoto(
                row=row.number,
                path=Path(path.parent, row.fields["image"]).absolute(),
                product_id=row.fields["product_id"],
                kind=row.fields.get("kind") or DEFAULT_KIND,
            )
        )
    if not queries:
        raise CatalogueError(f"{path} has no query")
    return queries
