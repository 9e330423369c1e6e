"""What a group of writes changes, decided from what is stored under its keys; no Milvus here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from services.indexer.milvus.rows import MAX_PAYLOAD_BYTES, Row
from services.indexer.overlay import Overlay
from services.indexer.records import NOT_STORED, TOO_MANY_ATTRIBUTES, Operation, Put, Record, Remove, Update
from services.indexer.rules import ArrivalClock, delete_wins, upsert_wins
from vitrine.attributes import MAX_ATTRIBUTES

_Stored = TypeVar("_Stored")

TOO_LARGE = -3
"""The outcome of an update that would leave a point with more than fits a row of Milvus."""

Key: TypeAlias = tuple[str, str]
"""Product id and image id; of a tombstone of a whole product the image id is empty."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written, and by how much it changes the counts."""

    outcomes: list[int]
    """For each operation: points stored (0: stale), deleted or changed; or what `records` names, or TOO_LARGE."""
    puts: list[Row]
    gone: list[Key]
    buried: dict[Key, int]
    dug_up: list[Key]
    points: int
    products: int
    tombstones: int

    def __bool__(self) -> bool:
        return bool(self.puts or self.gone or self.buried or self.dug_up)


def decide(
    operations: Sequence[Operation], rows: Iterable[Row], tombstones: Mapping[Key, int], clock: ArrivalClock
) -> Changes:
    """Applies operations in order.

    Args:
        operations: To apply.
        rows: Every live point of every product that an operation names; with its vector where one is an update.
        tombstones: Every tombstone of these products, with its version.
        clock: Versions for writes that bring none.
    """
    group = _Group(rows, tombstones, clock)
    return group.changes([group.apply(each) for each in operations])


class _Group:
    def __init__(self, rows: Iterable[Row], tombstones: Mapping[Key, int], clock: ArrivalClock) -> None:
        self._clock = clock
        self._live: dict[str, dict[str, Row]] = {}
        self._graves: dict[str, dict[str, int]] = {}
        for row in rows:
            self._live.setdefault(row.record.product_id, {})[row.record.image_id] = row
        for (product, image), version in tombstones.items():
            self._graves.setdefault(product, {})[image] = version
        self._live_before = {product: dict(images) for product, images in self._live.items()}
        self._graves_before = {product: dict(images) for product, images in self._graves.items()}

    def apply(self, operation: Operation) -> int:
        match operation:
            case Put():
                return self._put(operation)
            case Remove():
                return self._remove(operation)
            case Update():
                return self._update(operation)

    def changes(self, outcomes: list[int]) -> Changes:
        before, after = _flat(self._live_before), _flat(self._live)
        graves_before, graves = _flat(self._graves_before), _flat(self._graves)
        return Changes(
            outcomes,
            puts=[row for key, row in after.items() if before.get(key) is not row],
            gone=[key for key in before if key not in after],
            buried={key: version for key, version in graves.items() if graves_before.get(key) != version},
            dug_up=[key for key in graves_before if key not in graves],
            points=len(after) - len(before),
            products=sum(map(bool, self._live.values())) - sum(map(bool, self._live_before.values())),
            tombstones=len(graves) - len(graves_before),
        )

    def _put(self, put: Put) -> int:
        product, image = put.record.product_id, put.record.image_id
        version = put.record.version or self._clock.for_upsert()
        stored = self._live.get(product, {}).get(image)
        if not upsert_wins(version, stored.record.version if stored else None, self._tombstone(product, image)):
            return 0
        payload, newer = put.record.payload, None
        if stored is not None and stored.newer:
            overlay = Overlay(stored.record.payload, stored.record.version, stored.newer).rewritten(payload, version)
            payload, newer = overlay.payload, overlay.newer
        # The newer point now remembers for its image; a product's tombstone stays for others.
        self._graves.get(product, {}).pop(image, None)
        self._live.setdefault(product, {})[image] = Row(Record(product, image, version, payload), newer, put.vector)
        return 1

    def _remove(self, remove: Remove) -> int:
        version = remove.version or self._clock.for_delete()
        product = remove.product_id
        images = self._images(product, remove.image_id)
        losers = [image for image, row in images.items() if delete_wins(version, row.record.version)]
        for image in losers:
            del self._live[product][image]
        # A newer point under the key remembers enough by itself; a product's tombstone also guards unseen images.
        if not remove.image_id or len(losers) == len(images):
            self._bury(product, remove.image_id, version)
        return len(losers)

    def _update(self, update: Update) -> int:
        version = update.version or self._clock.for_upsert()
        images = self._images(update.product_id, update.image_id)
        if not images:
            return NOT_STORED
        changed: dict[str, Row] = {}
        for image, row in images.items():
            overlay = Overlay(row.record.payload, row.record.version, row.newer)
            if overlay.change(version, update.changes):
                if overlay.size > MAX_ATTRIBUTES:
                    return TOO_MANY_ATTRIBUTES
                if len(overlay.payload) > MAX_PAYLOAD_BYTES:
                    return TOO_LARGE
                record = Record(update.product_id, image, row.record.version, overlay.payload)
                changed[image] = Row(record, overlay.newer, row.vector)
        self._live[update.product_id].update(changed)
        return len(changed)

    def _images(self, product: str, image: str) -> dict[str, Row]:
        """Returns the live images that a key means: one, or all where `image` is empty."""
        images = self._live.get(product, {})
        return dict(images) if not image else {image: images[image]} if image in images else {}

    def _tombstone(self, product: str, image: str) -> int | None:
        graves = self._graves.get(product, {})
        return max((graves[each] for each in {"", image} if each in graves), default=None)

    def _bury(self, product: str, image: str, version: int) -> None:
        newest = self._tombstone(product, image)
        if newest is not None and newest >= version:
            return
        graves = self._graves.setdefault(product, {})
        # What the new tombstone covers goes: its own older self, and for a product those of its images.
        covered = [each for each in graves if image in ("", each) and graves[each] <= version]
        for each in covered:
            del graves[each]
        graves[image] = version


def _flat(nested: Mapping[str, Mapping[str, _Stored]]) -> dict[Key, _Stored]:
    return {(product, image): value for product, images in nested.items() for image, value in images.items()}
