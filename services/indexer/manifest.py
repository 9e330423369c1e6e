"""Which segments count: one small file per collection, replaced atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from services.indexer.files import write_atomically

FORMAT = 1
_NAME = "manifest.json"


class SegmentEntry(BaseModel):
    """One segment: its folder, its number of rows, and the sha256 of each of its files by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    checksums: dict[str, str]


class DamagedManifestError(Exception):
    """The manifest is not what was written."""


def save_manifest(directory: Path, entries: Sequence[SegmentEntry]) -> None:
    """Makes `entries` the segments of the collection in `directory`; on disk when it returns."""
    body = {"format": FORMAT, "segments": [entry.model_dump() for entry in entries]}
    write_atomically(directory / _NAME, json.dumps({**body, "sha256": _digest(body)}, indent=1).encode())


def load_manifest(directory: Path) -> list[SegmentEntry]:
    """Returns the segments of the collection in `directory`; none where there is no manifest.

    Raises:
        DamagedManifestError: It fails its checksum or is of an unknown format.
    """
    try:
        body: dict[str, Any] = json.loads((directory / _NAME).read_bytes())
        digest = body.pop("sha256")
        if digest != _digest(body):
            raise DamagedManifestError("its checksum is wrong")
        if body["format"] != FORMAT:
            raise DamagedManifestError(f"its format is {body['format']}, this program knows {FORMAT}")
        return [SegmentEntry.model_validate(entry) for entry in body["segments"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise DamagedManifestError(f"it cannot be read: {error}") from None


def set_manifest_aside(directory: Path) -> Path:
    """Renames a damaged manifest; returns its new name."""
    return (directory / _NAME).replace(directory / f"{_NAME}.damaged")


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
