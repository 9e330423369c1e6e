"""`python -m deploy.reference` writes deploy/config.reference.toml: every setting, its default and its trade-off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types

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


def _settings(kind: type[ServiceSettings]) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        limits = ", ".join(_limits(field.metadata))
        description = f"{field.description}{f' ({limits})' if limits else ''}"
        yield textwrap.fill(description, 116, initial_indent="# ", subsequent_indent="# ")
        yield f"# {name} =\n" if field.default is None else f"{name} = {_toml(field.default)}\n"


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
        case _:
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    REFERENCE.write_text(render())
    print(f"wrote {REFERENCE}")
