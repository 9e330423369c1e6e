"""`vitrine token`."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from vitrine.callers import is_caller
from vitrine.cli.output import errors

_RANDOM_BYTES = 32
_SCOPES = ("read", "write", "admin", "metrics")


def token_command(
    name: Annotated[str, typer.Argument(help="Whose token it is: 1 to 64 letters, digits and . _ : @ / -")],
    file: Annotated[Path, typer.Option("--file", "-f", help="Where to put the token; must not be there yet.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", help=f"What it may do: {', '.join(_SCOPES)}; none includes another.")
    ],
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="Only this collection or alias, or those that begin so (shop-*)."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="How long it counts; default: for ever.")] = None,
) -> None:
    """Makes a token: it goes into a file, and the entry for the auth_file of the services is printed."""
    if not is_caller(name):
        raise typer.BadParameter("must be 1 to 64 letters, digits and . _ : @ / -, the first a letter or digit")
    if unknown := sorted(set(scopes) - set(_SCOPES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: not among {', '.join(_SCOPES)}", param_hint="--scope")
    for each in collections or ():
        if not each or "*" in each[:-1] or '"' in each or "\\" in each or not each.isprintable():
            raise typer.BadParameter(f"{each!r} is no name, and no beginning of names", param_hint="--collection")
    token = f"vitrine_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    # For its owner's eyes only, from the moment it is there.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
        target.write(token + "\n")
    entry = [
        "[[token]]",
        f'name = "{name}"',
        f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
        f"scopes = {_list(dict.fromkeys(scopes))}",
    ]
    if collections:
        entry.append(f"collections = {_list(collections)}")
    if days:
        entry.append(f"expires = {datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}")
    print("\n".join(entry))
    errors.print(f"the token is in {file}; the lines above belong into auth_file", highlight=False, markup=False)


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{each}"' for each in values) + "]"
