"""Facets: what candidates have, how often."""

from tests.ranking.candidates import candidate
from vitrine.attributes import from_proto
from vitrine.search.facets import count_facets


def counted(candidates, *names):
    return {
        facet.attribute: [(from_proto(each.value), each.count) for each in facet.values]
        for facet in count_facets(candidates, names)
    }


def test_values_are_counted_most_frequent_first():
    candidates = [
        candidate("a", brand="X", tags=["new", "new", "red"], price=1),
        candidate("b", brand="Y", tags=["red"], price=1.0),
        candidate("c", brand="Y", tags=[], price=True),
        candidate("d"),
    ]
    found = counted(candidates, "tags", "brand", "nothing", "price")
    assert list(found) == ["tags", "brand", "nothing", "price"]
    assert found["brand"] == [("Y", 2), ("X", 1)]
    assert found["tags"] == [("red", 2), ("new", 1)]
    assert found["nothing"] == []
    assert [(type(value), value, count) for value, count in found["price"]] == [
        (bool, True, 1),
        (float, 1.0, 1),
        (int, 1, 1),
    ]
    assert counted(candidates) == {}


def test_at_most_fifty_values():
    candidates = [candidate(f"P{number}", colour=f"{number:03}") for number in range(60)]
    assert [value for value, _ in counted(candidates, "colour")["colour"]] == [f"{number:03}" for number in range(50)]
