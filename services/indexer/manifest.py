"""Which segments count: one small file per collection, replaced atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from services.indexer.files import DamagedFileError, read_checked, write_checked

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
    write_checked(directory / _NAME, {"format": FORMAT, "segments": [entry.model_dump() for entry in entries]})


def load_manifest(directory: Path) -> list[SegmentEntry]:
    """Returns the segments of the collection in `directory`; none where there is no manifest.

    Raises:
        DamagedManifestError: It fails its checksum or is of an unknown format.
    """
    try:
        body = read_checked(directory / _NAME, known_format=FORMAT)
        return [SegmentEntry.model_validate(entry) for entry in body["segments"]]
    except FileNotFoundError:
        return []
    except DamagedFileError as error:
        raise DamagedManifestError(str(error)) from None
    except (KeyError, TypeError, ValidationError) as error:
        raise DamagedManifestError(f"it cannot be read: {error}") from None


def set_manifest_aside(directory: Path) -> Path:
    """Renames a damaged manifest; returns its new name."""
    return (directory / _NAME).replace(directory / f"{_NAME}.damaged")
