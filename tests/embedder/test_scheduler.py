"""Which images make a batch: no threads, no device, and a clock that stands until the test moves it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embedder.priority import Priority
from services.embedder.scheduler import Batching, Scheduler, batch_sizes

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


@dataclass(eq=False)
class Image:
    name: object
    priority: Priority = INTERACTIVE
    caller: str = ""
    deadline: float | None = None
    patience: float | None = None
    abandoned: bool = False


class Bench:
    """A scheduler, its clock, and what it dropped."""

    def __init__(self, sizes=(1, 2, 4), lanes=1, bulk=1024):
        self.now = 100.0
        self.dropped = []
        self.scheduler = Scheduler(
            Batching(sizes, lanes, bulk=bulk),
            lambda: self.now,
            lambda image, reason: self.dropped.append((image.name, reason)),
        )

    def push(self, *names, **values):
        images = [Image(name, **values) for name in names]
        for image in images:
            self.scheduler.push(image)
        return images

    def take(self):
        return [image.name for image in self.scheduler.take()]

    def batches(self):
        """Everything that waits, on one lane."""
        batches = []
        while batch := self.take():
            self.scheduler.done()
            batches.append(batch)
        return batches


def test_a_batch_is_what_gathered_and_never_larger_than_the_largest_size():
    bench = Bench()
    bench.push(1)
    assert bench.take() == [1]
    bench.push(2, 3, 4, 5, 6, 7)
    bench.scheduler.done()
    assert bench.batches() == [[2, 3, 4, 5], [6, 7]]
    assert bench.take() == []
    assert bench.scheduler.busy == 0


def test_interactive_goes_first_and_bulk_only_takes_places_that_would_be_padding():
    bench = Bench()
    bench.push("a", "b", "c", "d", "e", "f", priority=BULK)
    bench.push(1, 2, 3)
    assert bench.batches() == [[1, 2, 3, "a"], ["b", "c", "d", "e"], ["f"]]


def test_one_interactive_image_does_not_pay_for_a_full_batch_of_bulk():
    bench = Bench()
    bench.push(*"abcdefgh", priority=BULK)
    bench.push(1)
    assert bench.take() == [1]


def test_bulk_alone_keeps_to_its_own_limit_and_still_fills_places_that_would_be_padding():
    bench = Bench(bulk=1)
    bench.push("a", "b", "c", priority=BULK)
    assert bench.take() == ["a"]
    bench.scheduler.done()
    bench.push(1, 2, 3)
    assert bench.take() == [1, 2, 3, "b"]


def test_free_lanes_share_what_waits():
    bench = Bench(lanes=2)
    bench.push(1, 2, 3, 4)
    assert (bench.take(), bench.take()) == ([1, 2], [3, 4])
    bench.push(5, 6, 7)
    bench.scheduler.done()
    assert bench.take() == [5, 6, 7]  # the other lane is busy, so all of it


def test_callers_take_turns_within_a_class():
    bench = Bench(sizes=(1,))
    bench.push(1, 2, 3, caller="crawler")
    bench.push(11, 12, caller="shop")
    bench.push(21, priority=BULK, caller="early bird")
    assert bench.batches() == [[1], [11], [2], [12], [3], [21]]


def test_what_nobody_waits_for_is_dropped_and_does_not_take_a_place():
    bench = Bench()
    first, second, _ = bench.push(1, 2, 3)
    first.abandoned = second.abandoned = True
    assert len(bench.scheduler) == 3
    assert bench.take() == [3]
    assert bench.dropped == [(1, "cancelled"), (2, "cancelled")]


def test_what_is_late_is_dropped():
    bench = Bench()
    bench.push("late", deadline=101.0)
    bench.push("in time", deadline=101.5)
    bench.now = 101.0
    assert bench.take() == ["in time"]
    assert bench.dropped == [("late", "expired")]


def test_a_queue_of_dropped_images_only_leaves_the_lane_free():
    bench = Bench()
    (image,) = bench.push(1)
    image.abandoned = True
    assert bench.take() == []
    assert bench.scheduler.busy == 0


@given(
    st.lists(st.tuples(st.sampled_from(list(Priority)), st.sampled_from(["", "a", "b"]), st.booleans()), max_size=40),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_every_image_leaves_once_or_is_dropped_once_and_interactive_never_waits_behind_bulk(images, largest, lanes):
    bench = Bench(sizes=batch_sizes(largest), lanes=lanes)
    pushed = {}
    for number, (priority, caller, abandoned) in enumerate(images):
        (pushed[number],) = bench.push(number, priority=priority, caller=caller, abandoned=abandoned)
    left, seen_bulk_only = [], False
    while batch := bench.take():
        left += batch
        assert bench.scheduler.busy <= lanes
        classes = [pushed[number].priority for number in batch]
        assert classes == sorted(classes, key=[INTERACTIVE, BULK].index)
        assert not (seen_bulk_only and INTERACTIVE in classes)
        seen_bulk_only = INTERACTIVE not in classes
        if INTERACTIVE in classes and BULK in classes:  # no larger than it would have been
            assert Batching(batch_sizes(largest)).padded(classes.count(INTERACTIVE)) >= len(batch)
        bench.scheduler.done()
    dropped = [number for number, _ in bench.dropped]
    assert sorted(left + dropped) == sorted(pushed)
    assert all(pushed[number].abandoned for number in dropped)
    assert not any(pushed[number].abandoned for number in left)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (5, (1, 2, 3, 4, 5)), (8, (1, 2, 3, 4, 6, 8)), (32, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))],
)
def test_the_sizes_are_few_and_close(largest, sizes):
    assert batch_sizes(largest) == sizes
    for count in range(1, largest + 1):
        padded = Batching(sizes).padded(count)
        assert (padded - count) / padded <= 1 / 3


def test_who_waited_too_long_is_refused_and_bulk_waits_as_long_as_it_takes():
    bench = Bench()
    bench.push("impatient", patience=101.0)
    bench.push("patient", patience=103.0)
    bench.push("catalogue", priority=BULK)
    bench.now = 102.0
    assert bench.take() == ["patient"]
    assert bench.dropped == [("impatient", "waited_too_long")]
