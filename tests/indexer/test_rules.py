"""Which write wins: the table of versions."""

from __future__ import annotations

import pytest

from services.indexer.rules import ArrivalClock, delete_wins, upsert_wins


@pytest.mark.parametrize(
    ("version", "stored", "tombstone", "wins"),
    [
        (1, None, None, True),  # nothing known
        (5, 4, None, True),  # newer than stored
        (5, 5, None, True),  # equal overwrites a stored point
        (5, 6, None, False),  # older never overwrites newer
        (5, None, 4, True),  # newer than the delete
        (5, None, 5, False),  # equal does not undo a delete
        (5, None, 6, False),
        (5, 5, 4, True),  # stored after a product's delete, written again
        (5, 6, 4, False),
        (7, 6, 7, False),
    ],
)
def test_upsert(version, stored, tombstone, wins):
    assert upsert_wins(version, stored, tombstone) is wins


@pytest.mark.parametrize(("version", "stored", "wins"), [(5, 4, True), (5, 5, True), (5, 6, False)])
def test_delete(version, stored, wins):
    assert delete_wins(version, stored) is wins


def test_arrival_times_never_fall_and_an_upsert_after_a_delete_is_newer():
    times = iter([100, 100, 100, 90, 90, 200])
    clock = ArrivalClock(lambda: next(times))
    assert clock.for_upsert() == 100
    assert clock.for_upsert() == 100  # many writes a millisecond do not run ahead of the time
    assert clock.for_delete() == 100
    assert clock.for_upsert() == 101  # the clock fell back, and a tombstone of 100 exists
    assert clock.for_delete() == 101
    assert clock.for_upsert() == 200
