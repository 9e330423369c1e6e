"""Column types as given on the command line."""

from __future__ import annotations

import typer

from vitrine.catalogue import ColumnType


def column_types(given: list[str]) -> dict[str, ColumnType]:
    """Returns the types in a list of COLUMN=TYPE by column name.

    Raises:
        typer.BadParameter: One is not like that.
    """
    types: dict[str, ColumnType] = {}
    for each in given:
        name, _, kind = each.rpartition("=")
        try:
            types[name] = ColumnType(kind)
        except ValueError:
            known = ", ".join(each.value for each in ColumnType)
            raise typer.BadParameter(
                f"{each!r} is not COLUMN=TYPE with a type of {known}", param_hint="--type"
            ) from None
    return types
