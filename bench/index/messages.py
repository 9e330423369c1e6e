"""Serialised messages in a file, so that a load generator neither builds nor decodes any."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

_LENGTH = struct.Struct(">I")


def write_messages(path: Path, messages: Iterable[bytes]) -> Path:
    """Writes messages, each after its length; returns the path."""
    with path.open("wb") as sink:
        for message in messages:
            sink.write(_LENGTH.pack(len(message)))
            sink.write(message)
    return path


def read_messages(path: Path) -> list[bytes]:
    """Returns them in their order."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        found.append(content[at : at + length])
        at += length
    return found
