"""Counts attribute values over the candidates of a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from vitrine.attributes import Value, to_proto
from vitrine.ranking.candidates import Candidate
from vitrine.v1 import search_pb2

MAX_VALUES = 50


def count_facets(candidates: Iterable[Candidate], names: Sequence[str]) -> list[search_pb2.Facet]:
    """Returns for each attribute its values, most frequent first, ties by kind and value.

    A list counts once for each element that it has. Values of different kinds are different values.
    """
    if not names:
        return []
    counts: dict[str, Counter[tuple[str, Value]]] = {name: Counter() for name in names}
    for candidate in candidates:
        attributes = candidate.attributes
        for name, counter in counts.items():
            value = attributes.get(name)
            if value is not None:
                values = set(value) if isinstance(value, list) else {value}
                counter.update((type(each).__name__, each) for each in values)
    return [
        search_pb2.Facet(
            attribute=name,
            values=[
                search_pb2.FacetValue(value=to_proto(value), count=count)
                for (_, value), count in sorted(counter.items(), key=_most_frequent)[:MAX_VALUES]
            ],
        )
        for name, counter in counts.items()
    ]


def _most_frequent(item: tuple[tuple[str, Value], int]) -> tuple[int, str, Value]:
    (kind, value), count = item
    return (-count, kind, value)
