"""Filters by column leave exactly the rows that the filter's meaning says: in blocks, after updates and in segments."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.indexer.columns import Column, Table
from services.indexer.filtering import AttributeFilter
from services.indexer.records import Record
from tests.filters import model
from tests.filters.test_meaning import CONDITIONS, POINTS
from vitrine.attributes import map_to_proto
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2


class WholeTable:
    """All rows of a table, as a view."""

    def __init__(self, table):
        self.table = table
        self.length = len(table.records)
        self.live = np.ones(self.length, np.bool_)


def record(attributes):
    return Record("p", "i", 1, indexer_pb2.Point(attributes=map_to_proto(attributes)).SerializeToString())


def table_of(points):
    table = Table(len(points) + 3)
    for each in points:
        table.append(record(each))
    return table


def expect(table, condition, points):
    found = AttributeFilter(parse(model.text(condition))).rows(WholeTable(table))
    assert found.tolist() == [row for row, point in enumerate(points) if model.truth(condition, point)]


@given(CONDITIONS, st.lists(POINTS, max_size=8))
def test_columns_mean_what_the_model_says(condition, points):
    expect(table_of(points), condition, points)


@given(CONDITIONS, st.lists(POINTS, min_size=1, max_size=6), st.data())
def test_changes_make_a_new_table_and_leave_the_old_one(condition, points, data):
    table = table_of(points)
    changes = data.draw(st.dictionaries(st.integers(0, len(points) - 1), POINTS, max_size=4))
    changed = table.changed({row: record(each) for row, each in changes.items()})
    expect(table, condition, points)
    expect(changed, condition, [changes.get(row, each) for row, each in enumerate(points)])
    changed.append(record({"a": 1, "new": True}))
    expect(table, condition, points)


@given(CONDITIONS, st.lists(POINTS, min_size=1, max_size=6), st.lists(POINTS, min_size=1, max_size=6), st.data())
def test_gathered_rows_keep_their_values(condition, first, second, data):
    kept = [
        np.array(sorted(data.draw(st.sets(st.integers(0, len(points) - 1)))), np.intp) for points in (first, second)
    ]
    gathered = Table.gathered([(table_of(first), kept[0]), (table_of(second), kept[1])])
    expect(
        gathered, condition, [points[row] for points, rows in zip((first, second), kept, strict=True) for row in rows]
    )


def test_a_dictionary_forgets_values_that_come_and_go():
    column = Column(4)
    for number in range(100):
        column = column.changed([(0, f"price tag {number}")])
    assert len(column._dictionary.values) < 20
    assert column.any_of(4, ["price tag 99"], lambda value: value == "price tag 99").tolist() == [
        True,
        False,
        False,
        False,
    ]
