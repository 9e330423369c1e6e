"""Types of attribute columns: inferred over the whole column, so that a filter means the same for every product."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

from vitrine.attributes import Value

# A leading zero is a code ("00417"), not a number, and would be lost.
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}

# A column with this share of numbers was probably meant to be one of numbers.
_NEARLY_ALL = 0.9


class ColumnType(enum.Enum):
    """What the values of a column are."""

    STRING = "string"
    INT64 = "int64"
    DOUBLE = "double"
    BOOL = "bool"
    LIST = "list"
    """Several strings, separated by `;`. Never inferred."""

    def parse(self, text: str) -> Value:
        """Converts one field that is not empty.

        Raises:
            ValueError: It is not of this type; the message says what is there.
        """
        match self:
            case ColumnType.STRING:
                return text
            case ColumnType.LIST:
                return split_list(text)
            case ColumnType.BOOL:
                if text.lower() in _BOOLEANS:
                    return _BOOLEANS[text.lower()]
                raise ValueError(f"{text[:40]!r} is not true or false")
            case ColumnType.INT64:
                if _fits_int64(text):
                    return int(text)
                raise ValueError(f"{text[:40]!r} is not a 64-bit integer")
            case ColumnType.DOUBLE:
                if _is_finite_number(text):
                    return float(text)
                raise ValueError(f"{text[:40]!r} is not a finite number")


@dataclass(frozen=True, slots=True)
class Column:
    """An attribute column: its name and type; `remark` is a doubt about the inferred type, for people."""

    name: str
    type: ColumnType
    remark: str = ""


class TypeGuess:
    """Narrows down the type of one column, value by value."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys((ColumnType.BOOL, ColumnType.INT64, ColumnType.DOUBLE), 0)
        self._values = 0
        self._first_text: tuple[int, str] | None = None

    def add(self, row: int, text: str) -> None:
        """Takes one field; empty ones say nothing."""
        if not text:
            return
        self._values += 1
        self._counts[ColumnType.BOOL] += text.lower() in _BOOLEANS
        self._counts[ColumnType.INT64] += _fits_int64(text)
        if _is_finite_number(text):
            self._counts[ColumnType.DOUBLE] += 1
        elif self._first_text is None:
            self._first_text = (row, text)

    def column(self, name: str) -> Column:
        """Returns the narrowest type that holds every value; string where none does or there is none."""
        for kind, count in self._counts.items():
            if self._values and count == self._values:
                return Column(name, kind)
        numbers = self._counts[ColumnType.DOUBLE]
        if self._first_text is not None and numbers >= _NEARLY_ALL * self._values:
            row, text = self._first_text
            return Column(
                name,
                ColumnType.STRING,
                f"{numbers} of {self._values} values of {name!r} are numbers, but row {row} has {text[:40]!r}, so the "
                f"column is text and `{name} < 5` matches nothing; --type {name}=double fails such rows instead",
            )
        return Column(name, ColumnType.STRING)


def split_list(text: str) -> list[str]:
    """Splits at `;`, without empty parts."""
    return [part.strip() for part in text.split(";") if part.strip()]


def _fits_int64(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and len(text) <= 20 and -(2**63) <= int(text) < 2**63


def _is_finite_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))
