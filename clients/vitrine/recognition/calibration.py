"""A calibration: what evidence is worth in one collection. Written by `vitrine calibrate`, read by the gateway.

A JSON file, small enough to read and to keep under version control.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_collection_name
from vitrine.recognition.curve import Curve

FORMAT = "vitrine-calibration/1"
SUFFIX = ".calibration.json"

_MAX_BYTES = 64 * 2**10
_FINGERPRINT_DIGITS = 64


class CalibrationFileError(Exception):
    """A calibration file that cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How often, at one threshold, catalogue pictures taken for photos were answered how."""

    refused: float
    """Share of the pictures of products that were not there for which nothing was recognised."""
    accepted: float
    """Share of the pictures of products that were there for which these were recognised."""
    mistaken: float
    """Share of the same for which another product was recognised."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What it was fitted on."""

    points: int
    products: int
    sampled: int
    """Products whose pictures were tried."""
    trials: int
    """Pictures that were tried, each once with its product and once without."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What evidence is worth in one collection."""

    collection: str
    """Its own name."""
    fingerprint: str
    """Embedding space it was fitted in."""
    curve: Curve
    min_confidence: float
    """From which confidence on a product counts as recognised."""
    expected: Rates
    """At that threshold."""
    basis: Basis

    def to_json(self) -> dict[str, object]:
        """Returns what the file holds."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Reads what a file holds.

        Raises:
            ValueError: Something is missing, of the wrong type or outside its range; it is named.
        """
        table = _table(content, "the file", ("format", *cls.__slots__))
        if table["format"] != FORMAT:
            raise ValueError(f"format is {table['format']!r}, must be {FORMAT!r}")
        curve = _table(table["curve"], "curve", Curve.__slots__)
        expected = _table(table["expected"], "expected", Rates.__slots__)
        basis = _table(table["basis"], "basis", Basis.__slots__)
        return cls(
            collection=_collection(table["collection"]),
            fingerprint=_fingerprint(table["fingerprint"]),
            curve=Curve(
                _number(curve["slope"], "curve.slope", math.ulp(0), math.inf),
                _number(curve["offset"], "curve.offset", -math.inf, math.inf),
            ),
            min_confidence=_number(table["min_confidence"], "min_confidence", 0, 1),
            expected=Rates(**{name: _number(value, f"expected.{name}", 0, 1) for name, value in expected.items()}),
            basis=Basis(**{name: _count(value, f"basis.{name}") for name, value in basis.items()}),
        )

    def save(self, path: Path) -> None:
        """Writes the file in one step: a gateway that reads it meanwhile sees the old one or the new one.

        Raises:
            OSError: It cannot be written.
        """
        unfinished = path.with_name(path.name + ".part")
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(self.to_json(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def load(path: Path) -> Calibration:
    """Reads one file.

    Raises:
        CalibrationFileError: It cannot be read, or is no calibration.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        return Calibration.from_json(json.loads(raw))
    except OSError as error:
        raise CalibrationFileError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are ValueErrors too
        raise CalibrationFileError(f"{path}: {error}") from None


def _table(value: object, name: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    if missing := [each for each in wanted if each not in value]:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - set(wanted)):
        raise ValueError(f"{name} has unknown {', '.join(unknown)}")
    return value


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} is {value:g}, must be {_range(low, high)}")
    return float(value)


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return "finite" if math.isinf(low) else "above 0 and finite"
    return f"{low:g} to {high:g}"


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is not a count")
    return value


def _collection(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("collection is not a name")
    try:
        check_collection_name(value)
    except InvalidArgumentError as error:
        raise ValueError(error.message) from None
    return value


def _fingerprint(value: object) -> str:
    if not (isinstance(value, str) and len(value) == _FINGERPRINT_DIGITS and set(value) <= set("0123456789abcdef")):
        raise ValueError(f"fingerprint is not {_FINGERPRINT_DIGITS} lower-case hex digits")
    return value
