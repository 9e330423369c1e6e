"""Attributes that change beside their point: each remembers the version that it was set with.

The result does not depend on the order in which upserts and updates arrive (a last-writer-wins map: Shapiro, Preguiça,
Baquero and Zawirski, "A comprehensive study of convergent and commutative replicated data types", 2011), as long as
the point is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from vitrine.v1 import common_pb2, indexer_pb2


class Overlay:
    """The attributes of one stored point, and which of them are newer than the point."""

    def __init__(self, payload: bytes, version: int, newer: str | None) -> None:
        """Takes what is stored: a `Point` with the attributes of today, the point's version, and `Overlay.newer`."""
        self._point = indexer_pb2.Point.FromString(payload)
        self._version = version
        self._newer: dict[str, int] = json.loads(newer) if newer else {}

    @property
    def payload(self) -> bytes:
        """The point with the attributes as they are now."""
        return self._point.SerializeToString(deterministic=True)

    @property
    def newer(self) -> str | None:
        """JSON from the name of an attribute to its version, where that is above the point's; None: of none."""
        return json.dumps(self._newer, sort_keys=True) if self._newer else None

    @property
    def size(self) -> int:
        """How many attributes there are."""
        return len(self._point.attributes)

    def change(self, version: int, changes: Mapping[str, common_pb2.AttributeValue | None]) -> bool:
        """Applies those changes that are not older than what they change; tells whether there was one."""
        wins = {name: value for name, value in changes.items() if version >= self._newer.get(name, self._version)}
        for name, value in wins.items():
            self._set(name, value)
            self._newer[name] = version
        return bool(wins)

    def rewritten(self, payload: bytes, version: int) -> Overlay:
        """Returns the overlay of the point written anew, with the attributes that have changed since that version."""
        fresh = Overlay(payload, version, None)
        for name, own in self._newer.items():
            if own > version:
                fresh._set(name, self._point.attributes.get(name))
                fresh._newer[name] = own
        return fresh

    def _set(self, name: str, value: common_pb2.AttributeValue | None) -> None:
        if value is not None:
            self._point.attributes[name].CopyFrom(value)
        elif name in self._point.attributes:
            del self._point.attributes[name]
