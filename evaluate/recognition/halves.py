"""Withholds half of a catalogue's products, ingests the rest, calibrates on it, and asks for photos of all."""

from __future__ import annotations

import asyncio
import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.local.stack import Stack
from vitrine.catalogue import Catalogue, QueryPhoto
from vitrine.engine import SearchEngine
from vitrine.errors import VitrineError
from vitrine.evaluation import temporary_collection
from vitrine.ingest import FailedRows, Summary, ingest
from vitrine.ingest.retry import Backoff, retrying
from vitrine.recognition.calibrating import calibrate
from vitrine.recognition.calibration import Calibration
from vitrine.recognition.shelf import Shelf
from vitrine.v1 import search_pb2

_CALLERS = 4
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One photo that was shown, and what came of it."""

    kind: str
    known: bool
    """Whether its product is in the collection."""
    right: bool
    """Whether the best candidate is its product."""
    confidence: float


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the products, and how photos of all were answered."""

    seed: int
    calibration: Calibration
    shown: list[Shown]


class Quiet:
    """An observer, of ingestion and of calibration, that shows nothing."""

    def progress(self, summary: Summary) -> None:
        """Something got its outcome."""

    def stage(self, what: str, total: int) -> None:
        """A stage begins."""

    def at(self, done: int) -> None:
        """So many things are done."""

    def waiting(self, error: VitrineError, seconds: float) -> None:
        """Something went away and is tried again."""


def write_half(products: Path, seed: int, path: Path) -> set[str]:
    """Writes a catalogue of a random half of the products of another; returns their ids. Image paths become absolute.

    Args:
        products: The whole, as for `vitrine ingest`.
        seed: Another one keeps others.
        path: Where to.
    """
    with products.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        rows = list(reader)
    ids = sorted(row["product_id"] for row in rows)
    kept = set(random.Random(seed).sample(ids, len(ids) // 2))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            if row["product_id"] in kept:
                images = (str((products.parent / each.strip()).resolve()) for each in row["images"].split(";"))
                writer.writerow({**row, "images": ";".join(images)})
    return kept


async def show(
    stack: Stack,
    products: Path,
    photos: Sequence[QueryPhoto],
    seed: int,
    scratch: Path,
    told: Callable[[], None],
    *,
    auto_crop: bool = False,
) -> Half:
    """Runs one half through the services of a stack.

    Args:
        stack: Running, with the model that is to be measured.
        products: CSV file of the whole catalogue.
        photos: Of products of it.
        seed: Which half is kept.
        scratch: Folder for files.
        told: Hears of each photo that was answered.
        auto_crop: Look at the main subject of each photo.

    Raises:
        VitrineError: Something was not answered.
        RuntimeError: An image could not be ingested.
    """
    path = scratch / f"half-{seed}.csv"
    kept = write_half(products, seed, path)
    engine = SearchEngine(stack.embedder, stack.indexers)
    try:
        async with temporary_collection(engine.shards, prefix=f"half-{seed}") as collection:
            with FailedRows(scratch / f"failed-{seed}.csv") as failures:
                await ingest(
                    Catalogue(path),
                    collection,
                    embedder=stack.embedder,
                    stored=None,
                    failures=failures,
                    observer=Quiet(),
                    summary=Summary(),
                )
                if failures.count:
                    raise RuntimeError(f"{failures.count} images of {products} could not be ingested")
            calibration = (await calibrate(engine.shards, collection, observer=Quiet())).calibration
            engine.shelf = Shelf([calibration])
            return Half(seed, calibration, await _ask(engine, collection, photos, kept, told, auto_crop=auto_crop))
    finally:
        await engine.close()


async def _ask(
    engine: SearchEngine,
    collection: str,
    photos: Sequence[QueryPhoto],
    kept: set[str],
    told: Callable[[], None],
    *,
    auto_crop: bool,
) -> list[Shown]:
    shown: list[Shown | None] = [None] * len(photos)
    work = iter(enumerate(photos))

    async def caller() -> None:
        for index, photo in work:
            image = await asyncio.to_thread(photo.path.read_bytes)
            # From a confidence of 0 on, the best candidate is always returned; thresholds are applied afterwards.
            request = search_pb2.RecognizeRequest(
                collection=collection, image=image, min_confidence=0, auto_crop=auto_crop
            )
            answer = await retrying(partial(engine.recognize, request, _TIMEOUT), Backoff())
            shown[index] = Shown(
                photo.kind, photo.product_id in kept, answer.product.product_id == photo.product_id, answer.confidence
            )
            told()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(caller())
    return [each for each in shown if each is not None]
