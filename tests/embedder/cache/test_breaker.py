from services.embedder.cache.breaker import Breaker
from tests.embedder.cache.entries import Clock


def test_the_first_failure_is_retried_at_once_and_further_ones_ever_later():
    breaker = Breaker(1.0, 30.0, Clock())
    assert not breaker.closed
    breaker.succeeded()
    assert breaker.closed
    assert [breaker.failed() for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert not breaker.closed


def test_a_short_recovery_is_not_forgiven_and_a_long_one_is():
    clock = Clock()
    breaker = Breaker(1.0, 30.0, clock)
    assert [breaker.failed() for _ in range(3)] == [0, 1, 2]
    breaker.succeeded()
    clock.now += 29
    assert breaker.failed() == 4
    breaker.succeeded()
    clock.now += 30
    assert breaker.failed() == 0


def test_a_thing_that_never_works_is_tried_at_the_longest_interval_for_ever():
    breaker = Breaker(1.0, 30.0, Clock())
    assert [breaker.failed() for _ in range(5000)][-1] == 30
