"""Which of two sessions one image gets, and how a wrong first impression is mended."""

from __future__ import annotations

import numpy as np
import pytest

from services.embedder.alone import Alone
from services.embedder.session import Outputs

PIXELS = np.zeros((1, 4, 4, 3), np.uint8)
OUTPUTS = Outputs(np.ones((1, 1), np.float32), None, None)


class Paced:
    """Takes as long as it is told to, on a clock of its own."""

    def __init__(self, now, seconds):
        self.now, self.seconds, self.runs = now, seconds, 0

    def run(self, pixels):
        assert pixels is PIXELS
        self.runs += 1
        self.now[0] += self.seconds
        return OUTPUTS


def pair(wide, narrow, **seconds):
    now = [0.0]
    sessions = Paced(now, wide), Paced(now, narrow)
    return *sessions, Alone(*sessions, clock=lambda: now[0], **seconds)


def run(alone, times):
    for _ in range(times):
        assert alone.run(PIXELS) is OUTPUTS


@pytest.mark.parametrize(("wide", "narrow", "faster"), [(1.0, 2.0, True), (1.0, 1.2, True), (1.0, 1.05, False)])
def test_all_cores_where_that_is_clearly_faster(wide, narrow, faster):
    wide_session, narrow_session, alone = pair(wide, narrow, wide_seconds=wide, narrow_seconds=narrow)
    assert alone.wide_is_faster == faster
    slower_session = narrow_session if faster else wide_session
    run(alone, 7)
    assert slower_session.runs == 0
    run(alone, 1)  # the other one's turn
    assert slower_session.runs == 1
    run(alone, 255)
    assert slower_session.runs == 1
    run(alone, 1)
    assert slower_session.runs == 2
    assert alone.wide_is_faster == faster


def test_a_disturbed_start_does_not_decide_for_long():
    _, narrow, alone = pair(1.0, 2.0, wide_seconds=5.0, narrow_seconds=2.0)
    run(alone, 7)
    assert narrow.runs == 7
    run(alone, 2 * 8)
    assert alone.wide_is_faster


def test_one_odd_try_changes_nothing():
    _, narrow, alone = pair(1.0, 2.0, wide_seconds=1.0, narrow_seconds=2.0)
    run(alone, 7)
    narrow.seconds = 0.5
    run(alone, 1)
    narrow.seconds = 2.0
    assert alone.wide_is_faster
    run(alone, 8)  # doubted, and tried again
    assert narrow.runs == 2
    run(alone, 255)  # believed
    assert (alone.wide_is_faster, narrow.runs) == (True, 2)


def test_cores_that_others_take_are_noticed():
    wide, _, alone = pair(1.0, 2.0, wide_seconds=1.0, narrow_seconds=2.0)
    run(alone, 9)
    wide.seconds = 4.0
    run(alone, 4)
    assert alone.wide_is_faster  # might be chance
    run(alone, 5)
    assert not alone.wide_is_faster
    wide.seconds = 1.0
    run(alone, 256 + 9 * 8)
    assert alone.wide_is_faster
