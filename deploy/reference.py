"""`python -m deploy.reference` writes deploy/config.reference.toml: every setting, its default and its trade-off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from services.embedder.settings import EmbedderSettings
from services.gateway.settings import GatewaySettings
from services.indexer.settings import IndexerSettings
from services.runtime.settings import ServiceSettings

REFERENCE = Path(__file__).parent / "config.reference.toml"
SECTIONS: tuple[type[ServiceSettings], ...] = (EmbedderSettings, IndexerSettings, GatewaySettings)

_HEADER = """\
# Every setting of every service, with its default. Made by `python -m deploy.reference`; a test keeps it true.
#
# A service reads VITRINE_CONFIG=/path/to/this.toml, then its environment, which wins: `port` in [embedder] is
# VITRINE_EMBEDDER_PORT. Lists are separated by commas there. An unknown name or a bad value stops the start.
"""


def render() -> str:
    """Returns the reference file."""
    return _HEADER + "".join(f"\n[{kind.section}]\n" + "\n".join(_settings(kind)) for kind in SECTIONS)


def _settings(kind: type[BaseModel], mark: str = "") -> Iterator[str]:
    """Yields the lines of a table; `mark` stands before its settings. Tables within it come last, as TOML has it."""
    tables = {name: field for name, field in kind.model_fields.items() if _tables_of(field) is not None}
    for name, field in kind.model_fields.items():
        if name not in tables:
            yield _description(field)
            yield f"# {name} =\n" if field.default is None else f"{mark}{name} = {_toml(field.default)}\n"
    for name, field in tables.items():
        inner = _tables_of(field)
        assert inner is not None
        yield _description(field)
        yield f"# [{getattr(kind, 'section', '')}.{name}.NAME]\n"
        yield from _settings(inner, "# ")


def _tables_of(field: FieldInfo) -> type[BaseModel] | None:
    """Returns what the tables of a setting hold where it is a table of tables."""
    arguments = get_args(field.annotation) if get_origin(field.annotation) is dict else ()
    is_table = len(arguments) == 2 and isinstance(arguments[1], type) and issubclass(arguments[1], BaseModel)
    return arguments[1] if is_table else None


def _description(field: FieldInfo) -> str:
    limits = ", ".join(_limits(field.metadata))
    description = f"{field.description}{f' ({limits})' if limits else ''}"
    return textwrap.fill(description, 116, initial_indent="# ", subsequent_indent="# ")


def _limits(metadata: list[Any]) -> Iterator[str]:
    for each in metadata:
        match each:
            case annotated_types.Ge():
                yield f"at least {each.ge}"
            case annotated_types.Gt():
                yield f"above {each.gt}"
            case annotated_types.Le():
                yield f"at most {each.le}"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(_toml(each) for each in value) + "]"
        case dict():
            return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
        case _:
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    REFERENCE.write_text(render())
    print(f"wrote {REFERENCE}")
