"""The circuit breaker, by the rules it promises, over any sequence of events."""

from hypothesis import given
from hypothesis import strategies as st

from vitrine.fanout.breaker import Breaker, BreakerState
from vitrine.fanout.policy import ShardPolicy

POLICY = ShardPolicy(breaker_failures=3, breaker_calls=8, breaker_share=0.5, breaker_window_seconds=10.0)
CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def opened(policy=POLICY, now=0.0):
    breaker = Breaker(policy)
    for _ in range(policy.breaker_failures):
        breaker.failed(breaker.admit(now), now)
    assert breaker.state is OPEN
    return breaker


def test_opens_after_failures_in_a_row_and_not_before():
    changes = []
    breaker = Breaker(ShardPolicy(breaker_failures=3, breaker_calls=1000), changes.append)
    for outcome in "ffsffsff":
        permit = breaker.admit(100.0)
        (breaker.failed if outcome == "f" else breaker.succeeded)(permit, 100.0)
    assert breaker.state is CLOSED
    breaker.failed(breaker.admit(0.0), 100.0)
    assert breaker.state is OPEN
    assert changes == [OPEN]
    assert breaker.admit(100.0) is None
    assert breaker.admit(10_000.0) is None  # time alone lets no caller try its luck


def test_opens_where_half_of_the_calls_fail_though_never_three_in_a_row():
    breaker = Breaker(POLICY)
    for number in range(7):
        permit = breaker.admit(0.0)
        (breaker.failed if number % 2 else breaker.succeeded)(permit, 1.0 + number / 10)
    assert breaker.state is CLOSED  # three of seven
    breaker.failed(breaker.admit(2.0), 2.0)
    assert breaker.state is OPEN  # four of eight


def test_old_failures_are_forgotten():
    breaker = Breaker(POLICY)
    for number in range(50):
        permit = breaker.admit(0.0)
        (breaker.failed if number % 2 else breaker.succeeded)(permit, 6.0 * number)
    assert breaker.state is CLOSED  # never eight calls in ten seconds


def test_a_caller_in_a_hurry_says_nothing_about_the_shard():
    breaker = Breaker(POLICY)
    for _ in range(20):
        breaker.unanswered(breaker.admit(0.0), 0.02, 0.02)
    assert breaker.state is CLOSED
    for _ in range(3):
        breaker.unanswered(breaker.admit(1.0), 0.5, 1.5)
    assert breaker.state is OPEN


def test_health_check_then_one_real_call():
    breaker = opened()
    assert breaker.probe_at == 1.0
    breaker.probed(False, 1.5)
    assert breaker.state is OPEN
    assert breaker.probe_at == 2.5
    breaker.probed(True, 2.5)
    assert breaker.state is HALF_OPEN
    assert breaker.probe_at is None
    permit = breaker.admit(3.0)
    assert permit is not None
    assert breaker.admit(3.0) is None  # one at a time
    assert breaker.admit(3.0, last_resort=True) is None
    breaker.succeeded(permit, 3.1)
    assert breaker.state is CLOSED
    assert breaker.admit(3.1) is not None


def test_alive_but_unable_waits_longer_every_time():
    breaker = opened()
    now, waits = 0.0, []
    for _ in range(7):
        waits.append(breaker.probe_at - now)
        breaker.probed(True, breaker.probe_at)
        now += 100.0
        breaker.failed(breaker.admit(now), now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    breaker.probed(True, now)
    breaker.succeeded(breaker.admit(now), now)
    for _ in range(3):
        breaker.failed(breaker.admit(now), now)
    assert breaker.probe_at == now + 1.0  # once well, it starts over


def test_a_trial_whose_caller_leaves_makes_room_for_the_next():
    breaker = opened()
    breaker.probed(True, 1.0)
    breaker.unanswered(breaker.admit(1.0), 0.01, 1.01)
    assert breaker.state is HALF_OPEN
    assert breaker.admit(1.1) is not None


def test_last_resort_does_not_delay_health_checks():
    breaker = opened()
    for number in range(20):
        breaker.failed(breaker.admit(number / 10, last_resort=True), number / 10)
        assert breaker.probe_at == 1.0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "last_resort", "succeeded", "failed", "unanswered", "hurried", "well", "unwell"]),
        st.integers(0, 7),
        st.sampled_from([0.0, 0.1, 3.0]),
    ),
    max_size=80,
)


@given(EVENTS)
def test_whatever_happens_it_keeps_its_rules_and_can_close(events):
    breaker, now = Breaker(POLICY), 0.0
    seen = [CLOSED]
    breaker._on_change = seen.append
    given_in, live, row = {}, [], 0
    for event, which, seconds in events:
        now += seconds
        before = breaker.state
        epoch = len(seen)
        if event in ("admit", "last_resort"):
            permit = breaker.admit(now, last_resort=event == "last_resort")
            trials = [each for each in live if given_in[id(each)] == epoch]
            if before is CLOSED:
                assert permit is not None
            elif before is OPEN and event == "admit":
                assert permit is None
            else:
                assert (permit is None) == bool(trials)
            if permit is not None:
                handle = [permit]
                given_in[id(handle)] = epoch
                live.append(handle)
            assert breaker.state is before
        elif event in ("well", "unwell"):
            breaker.probed(event == "well", now)
            assert breaker.state is (HALF_OPEN if before is OPEN and event == "well" else before)
        elif live:
            handle = live.pop(which % len(live))
            current = given_in[id(handle)] == epoch
            if event == "succeeded":
                breaker.succeeded(handle[0], now)
                assert breaker.state is (CLOSED if current else before)
            elif event == "hurried":
                breaker.unanswered(handle[0], 0.01, now)
                assert breaker.state is before
            else:
                breaker.failed(handle[0], now) if event == "failed" else breaker.unanswered(handle[0], 9.0, now)
                if not current:
                    assert breaker.state is before
                elif before is CLOSED:
                    assert breaker.state in (CLOSED, OPEN)
                    assert breaker.state is OPEN or row + 1 < POLICY.breaker_failures
                else:
                    assert breaker.state is OPEN
            if current and before is CLOSED:
                row = row + 1 if event in ("failed", "unanswered") else 0 if event == "succeeded" else row
        if len(seen) != epoch:
            row = 0
        assert (breaker.probe_at is not None) == (breaker.state is OPEN)
    # A shard that is well again is asked again, whatever has been.
    for handle in live:
        breaker.unanswered(handle[0], 0.0, now)
    breaker.probed(True, now)
    permit = breaker.admit(now)
    assert permit is not None
    breaker.succeeded(permit, now)
    assert breaker.state is CLOSED
