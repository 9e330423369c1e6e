"""Words, the same way in documents and in queries.

Case, accents and ligatures do not matter (`Crème`, `CREME`; `Straße`, `STRASSE`). What is joined by a hyphen, a dot or
the like counts as its parts and as one (`T-Shirt`: t, shirt, tshirt), and so does a number with its unit (`70mm`:
70mm, 70, mm). Chinese and Japanese, which put no spaces between words, count by pairs of characters. English endings
are left to SQLite (Porter, "An algorithm for suffix stripping", 1980).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_LONGEST_WORD = 64
_MOST_JOINED = 4

_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i"})
_ACCENTS = re.compile("[\u0300-\u036f]+")
# Vowel signs of Indian and other scripts belong to their word; Python's \w leaves them out.
_MARKS = "".join(char for char in map(chr, range(0x370, 0x10000)) if unicodedata.category(char) in ("Mn", "Mc"))
_PART = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
_JOINED = re.compile(rf"{_PART.pattern}(?:[-\u2010\u2011'\u2019._/&+]{_PART.pattern})*")
_DIGITS_OR_NOT = re.compile(r"\d+|\D+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


def words_of(text: str) -> Iterator[str]:
    """Yields the words of a text in order: letters and digits only, of any script, none empty, some of them twice."""
    for joined in _JOINED.finditer(_plain(text)):
        parts = _PART.findall(joined[0])
        for part in parts:
            yield from _forms(part[:_LONGEST_WORD])
        if 1 < len(parts) <= _MOST_JOINED:
            yield "".join(parts)[:_LONGEST_WORD]


def _plain(text: str) -> str:
    folded = text.casefold()
    if folded.isascii():
        return folded
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", folded)).casefold().translate(_LETTERS)


def _forms(part: str) -> Iterator[str]:
    if part.isascii():
        yield part
        if not part.isalpha() and not part.isdigit():
            yield from _DIGITS_OR_NOT.findall(part)
        return
    position = 0
    for run in _UNSPACED.finditer(part):
        if run.start() > position:
            yield part[position : run.start()]
        pairs = [run[0][start : start + 2] for start in range(len(run[0]) - 1)]
        yield from pairs or [run[0]]
        position = run.end()
    if position < len(part):
        yield part[position:]
