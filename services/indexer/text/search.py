"""Answers `SearchText` in a thread: the lexicon says who matches, a snapshot who of them is live and passes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from services.indexer.answering import add_hits, add_timings
from services.indexer.blocks import Snapshot
from services.indexer.columns import Mask
from services.indexer.filtering import AttributeFilter
from services.indexer.memory import ProductTable
from services.indexer.queries import MAX_EXCLUDED, check_count, read_filter
from services.indexer.ranking import Hit
from services.indexer.records import Record
from services.indexer.search import Stages
from services.indexer.text.lexicon import LexiconReader
from services.indexer.text.words import words_of
from vitrine.errors import DeadlineError, InvalidArgumentError, UnavailableError
from vitrine.keys import check_id
from vitrine.limits import MAX_K, MAX_TEXT_BYTES
from vitrine.v1 import indexer_pb2


@dataclass(frozen=True, slots=True)
class TextQuery:
    """One checked query: words as the lexicon has them, each once."""

    words: tuple[str, ...]
    k: int
    condition: AttributeFilter | None
    excluded: frozenset[int]
    """Product ordinals."""


def read_text_query(request: indexer_pb2.SearchTextRequest, products: ProductTable) -> TextQuery:
    """Checks a request.

    Raises:
        InvalidArgumentError: A field breaks its limit; names it.
    """
    if (size := len(request.text.encode())) > MAX_TEXT_BYTES:
        raise InvalidArgumentError(f"text has {size} bytes, at most {MAX_TEXT_BYTES}", field="text")
    words = tuple(dict.fromkeys(words_of(request.text)))
    if not words:
        raise InvalidArgumentError("text has no word in it: send at least one letter or digit", field="text")
    check_count("k", request.k, 1, MAX_K)
    check_count("exclude_product_ids", len(request.exclude_product_ids), 0, MAX_EXCLUDED)
    for product_id in request.exclude_product_ids:
        check_id(product_id, "exclude_product_ids")
    ordinals = map(products.find, request.exclude_product_ids)
    return TextQuery(
        words,
        request.k,
        read_filter(request.filter) if request.HasField("filter") else None,
        frozenset(ordinal for ordinal in ordinals if ordinal is not None),
    )


def search_text(
    snapshot: Snapshot,
    products: ProductTable,
    lexicon: LexiconReader,
    query: TextQuery,
    *,
    with_attributes: bool,
    deadline: float,
    submitted: float,
) -> indexer_pb2.SearchTextResponse:
    """Finds the k products that match best; CPU work.

    Args:
        snapshot: Says which images are live, and what they are.
        products: Of the collection.
        lexicon: At the snapshot's generation or later.
        query: What to find.
        with_attributes: Put attributes into the hits.
        deadline: `time.perf_counter()` after which nobody waits for the answer.
        submitted: `time.perf_counter()` when the work was handed over.

    Raises:
        DeadlineError: The deadline passed.
        DamagedLexiconError: The lexicon must be made anew.
        UnavailableError: The disk refuses.
    """
    stages = Stages()
    started = stages.add("queue", submitted)
    masks = [view.live if query.condition is None else query.condition.mask(view) for view in snapshot.views]
    allowed = np.zeros(products.numbered, np.bool_)
    for view, mask in zip(snapshot.views, masks, strict=True):
        allowed[view.products[mask]] = True
    allowed[list(query.excluded)] = False
    started = stages.add("filter", started)
    try:
        with lexicon.find(query.words, deadline) as matches:
            best = _best(matches, products, allowed, query.k, deadline)
    except sqlite3.Error as error:
        raise UnavailableError(f"the shard's disk refuses: {error}") from None
    started = stages.add("text", started)
    response = indexer_pb2.SearchTextResponse(generation=snapshot.generation, points=snapshot.points)
    records = _first_images(snapshot, masks, [ordinal for ordinal, _ in best], products.numbered)
    add_hits(response, [Hit(score, records[ordinal]) for ordinal, score in best], with_attributes)
    stages.add("answer", started)
    add_timings(response, stages.seconds)
    return response


def _best(
    matches: Iterable[tuple[str, float]], products: ProductTable, allowed: Mask, k: int, deadline: float
) -> list[tuple[int, float]]:
    """Returns ordinals and scores of the k best products among matches that come best first; ties by product id."""
    best: list[tuple[int, float]] = []
    # As callers get them: what is equal for them is a tie.
    for score, tied in groupby(matches, key=lambda match: float(np.float32(match[1]))):
        if time.perf_counter() > deadline:
            raise DeadlineError("the deadline passed during the search")
        found = []
        for product_id, _ in tied:
            ordinal = products.find(product_id)
            if ordinal is not None and ordinal < len(allowed) and allowed[ordinal]:
                found.append((product_id, ordinal))
        best.extend((ordinal, score) for _, ordinal in sorted(found))
        if len(best) >= k:
            break
    return best[:k]


def _first_images(snapshot: Snapshot, masks: Iterable[Mask], ordinals: list[int], numbered: int) -> dict[int, Record]:
    """Returns of each product the image with the lowest id among those that the masks allow."""
    wanted = np.zeros(numbered, np.bool_)
    wanted[ordinals] = True
    first: dict[int, Record] = {}
    for view, mask in zip(snapshot.views, masks, strict=True):
        for row in np.flatnonzero(mask & wanted[view.products]).tolist():
            record, ordinal = view.table.records[row], int(view.products[row])
            if ordinal not in first or record.image_id < first[ordinal].image_id:
                first[ordinal] = record
    return first
