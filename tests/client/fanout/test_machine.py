"""The fan-out's state machine, against whatever shards may do: every script, every order, in no time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.fanout.simulation import ERRORS, guards, play
from vitrine.errors import DeadlineError, InvalidArgumentError, NotFoundError, UnavailableError
from vitrine.fanout.breaker import BreakerState
from vitrine.fanout.policy import ShardPolicy
from vitrine.fanout.result import answers_needed
from vitrine.merge import merge_hits
from vitrine.v1 import common_pb2, indexer_pb2

OUTCOMES = st.one_of(st.integers(0, 9), st.sampled_from([*ERRORS, "never"]))
# Times that meet each other, the pauses and the deadline exactly, as well as those that do not.
SECONDS = st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.7, 0.8, 1.0, 1.1, 5.0])
TRIES = st.tuples(SECONDS, OUTCOMES)
SCRIPTS = st.lists(st.tuples(TRIES, TRIES), min_size=1, max_size=5)
HARMLESS = st.lists(
    st.tuples(*[st.tuples(SECONDS, OUTCOMES.filter(lambda outcome: outcome != "refused"))] * 2), min_size=1, max_size=5
)


def parts(result):
    return [set(result.answers), set(result.failed), set(result.timed_out), result.abandoned]


@given(SCRIPTS, st.integers(0, 5), st.none() | st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0]))
def test_always_over_by_the_deadline_with_nothing_left_out(script, needed, leaves_at):
    world = play(script, needed=needed, leaves_at=leaves_at)
    assert world.finished_at is not None
    assert world.finished_at <= 1.0
    if leaves_at is not None:
        assert world.finished_at <= max(leaves_at, 0.0)
    assert not world.out - world.cancelled
    assert world.machine.finished


@given(SCRIPTS, st.integers(0, 5))
def test_nobody_is_asked_more_than_twice_nor_twice_at_once(script, needed):
    world = play(script, needed=needed)
    asked = [(shard, attempt) for shard, attempt, _ in world.calls]
    assert len(set(asked)) == len(asked)
    assert {attempt for _, attempt in asked} <= {1, 2}
    for shard, attempt, when in world.calls:
        if attempt == 2:
            assert script[shard][0][1] in ("away", "busy")
            pause = 0.2 if script[shard][0][1] == "busy" else 0.0
            assert when == pytest.approx(script[shard][0][0] + pause)
    assert world.machine.result.retried == {shard for shard, attempt in asked if attempt == 2}


@given(HARMLESS, st.integers(0, 5))
def test_coverage_adds_up(script, needed):
    result = play(script, needed=needed).machine.result
    seen = [shard for part in parts(result) for shard in part]
    assert sorted(seen) == list(range(len(script)))
    if needed == 0:
        assert not result.abandoned


@given(HARMLESS)
def test_each_shard_gets_what_its_script_says(script):
    result = play(script).machine.result
    for shard, tries in enumerate(script):
        time, expected = 0.0, None
        for attempt, (seconds, outcome) in enumerate(tries, start=1):
            time += seconds
            if outcome == "never" or time >= 1.0:
                # What happens at the very deadline may fall on either side of it.
                expected = ("timed_out",) if time != 1.0 or outcome == "never" else ("timed_out", "as it says")
                break
            expected = ("as it says",)
            if outcome not in ("away", "busy") or attempt == 2:
                break
            if outcome == "busy":
                if time + 0.2 >= 1.0:
                    break
                time += 0.2
        said = {"late": "timed_out", "behind": "timed_out"}.get(
            outcome, "failed" if isinstance(outcome, str) else "answers"
        )
        allowed = {said if each == "as it says" else each for each in expected}
        assert next(name for name in ("answers", "failed", "timed_out") if shard in getattr(result, name)) in allowed
        if shard in result.answers:
            assert result.answers[shard] == outcome


@given(HARMLESS, st.integers(1, 5))
def test_too_few_answers_are_an_error_that_names_the_shards(script, needed):
    needed = min(needed, len(script))
    patient = play(script).machine.result
    result = play(script, needed=needed).machine.result
    if len(patient.answers) >= needed:
        assert result.answers == patient.answers
        result.raise_if_short(needed)
        return
    with pytest.raises(UnavailableError, match=rf"of {len(script)} shards answered, {needed} must") as caught:
        result.raise_if_short(needed)
    for shard in result.failed | result.timed_out:
        assert f"shard {shard} at shard{shard}:50060" in caught.value.message


def test_what_cannot_be_enough_any_more_is_given_up_at_once():
    world = play([((0.1, "broken"),), ((0.9, 7),), ((5.0, "never"),)], needed=3)
    assert world.finished_at == 0.1
    assert world.cancelled == {(1, 1), (2, 1)}
    assert world.machine.result.abandoned == {1, 2}


def test_what_no_shard_has_is_not_found_rather_than_too_little():
    result = play([((0.1, "missing"),), ((0.9, "missing"),)], needed=2).machine.result
    with pytest.raises(NotFoundError):
        result.raise_if_unanswered()


@given(SCRIPTS.filter(lambda script: len(script) > 1), st.integers(0, 4))
def test_a_refused_request_ends_it_at_once(script, position):
    script = [*script]
    script[position % len(script)] = ((0.05, "refused"), (0.0, 1))
    world = play(
        [tries if index == position % len(script) else ((5.0, 1), (5.0, 1)) for index, tries in enumerate(script)]
    )
    assert isinstance(world.machine.refusal, InvalidArgumentError)
    assert world.finished_at == 0.05
    assert len(world.cancelled) == len(script) - 1


@given(st.lists(st.lists(st.sampled_from(["away", "busy", 1]), min_size=2, max_size=2), min_size=1, max_size=120))
def test_retries_stay_within_their_budget(pairs):
    policy = ShardPolicy(retry_share=0.1, retry_reserve=3.0, breaker_failures=10**6, breaker_calls=10**6)
    shared = guards(1, policy)
    retries = sum(
        len(play([tuple((0.0, outcome) for outcome in pair)], shared=shared, now=10.0 * number).calls) - 1
        for number, pair in enumerate(pairs)
    )
    assert retries <= 3 + 0.1 * len(pairs) + 1e-9
    assert shared[0].budget.tokens >= 0


def test_a_shard_that_keeps_failing_is_skipped_until_it_is_well():
    shared = guards(2)
    for number in range(5):
        play([((0.0, 1),), ((5.0, "never"),)], shared=shared, now=10.0 * number)
    assert shared[1].breaker.state is BreakerState.OPEN

    world = play([((0.1, 1),), ((0.1, 2),)], shared=shared, now=50.0)
    assert [shard for shard, _, _ in world.calls] == [0]
    assert world.finished_at == pytest.approx(50.1)  # not the deadline: nobody waits for it
    assert world.machine.result.skipped == {1}
    assert set(world.machine.result.failed) == {1}

    shared[1].breaker.probed(True, 60.0)
    world = play([((0.1, 1),), ((0.1, 2),)], shared=shared, now=60.0)
    assert world.machine.result.answers == {0: 1, 1: 2}
    assert shared[1].breaker.state is BreakerState.CLOSED


def test_a_shard_that_says_what_it_waited_for_in_vain_stays_in_service():
    shared = guards(2)
    for number in range(30):
        world = play([((0.0, 1),), ((0.9, "behind"),)], shared=shared, now=10.0 * number)
        assert set(world.machine.result.timed_out) == {1}
    assert shared[1].breaker.state is BreakerState.CLOSED


def test_where_nobody_would_be_left_to_ask_everybody_is():
    shared = guards(2)
    for number in range(5):
        play([((0.0, "away"), (0.0, "away")), ((5.0, "never"),)], shared=shared, now=10.0 * number)
    assert {guard.breaker.state for guard in shared.values()} == {BreakerState.OPEN}
    result = play([((0.1, "away"),), ((0.1, 2),)], shared=shared, now=50.0).machine.result
    assert result.answers == {1: 2}
    assert not result.skipped
    assert shared[1].breaker.state is BreakerState.CLOSED


def test_where_somebody_asks_them_already_the_others_are_told_at_once():
    shared = guards(2)
    for number in range(5):
        play([((5.0, "never"),)] * 2, shared=shared, now=10.0 * number)
    for guard in shared.values():
        assert guard.breaker.admit(50.0, last_resort=True) is not None  # another caller's
    world = play([((0.1, 1),)] * 2, shared=shared, now=50.0)
    assert world.finished_at == 50.0
    assert not world.calls
    with pytest.raises(UnavailableError, match=r"shard 0 at .*circuit breaker.*shard 1") as caught:
        world.machine.result.raise_if_unanswered()
    assert caught.value.retry_after > 0


def test_no_answer_in_time_says_so():
    result = play([((5.0, "never"),)] * 2).machine.result
    with pytest.raises(DeadlineError, match="none of 2 shards"):
        result.raise_if_unanswered()


HITS = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("xy"), st.sampled_from([0.25, 0.5])), max_size=6)


@given(st.lists(st.tuples(SECONDS, HITS), min_size=1, max_size=4), st.integers(1, 5), st.permutations(range(4)))
def test_ties_are_broken_the_same_way_whoever_answers_first(shards, k, order):
    def ranking(delays):
        script = [((delay, number),) for number, delay in enumerate(delays)]
        answers = play(script, deadline=10.0).machine.result.answers
        found = merge_hits(([hit(*row) for row in shards[number][1]] for number in answers.values()), k)
        return [(each.key.product_id, each.key.image_id, each.score) for each in found]

    delays = [delay for delay, _ in shards]
    assert ranking(delays) == ranking([0.1 * place for place in order[: len(shards)]])


def hit(product, image, score):
    return indexer_pb2.ProductHit(key=common_pb2.PointKey(product_id=product, image_id=image), score=score)


@pytest.mark.parametrize(
    ("shards", "min_coverage", "allow_partial", "needed"),
    [
        (3, 0.0, True, 0),
        (3, 0.01, True, 1),
        (3, 0.6666667, True, 2),
        (3, 0.67, True, 3),
        (3, 1.0, True, 3),
        (3, 0, False, 3),
    ],
)
def test_the_share_asked_for_in_shards(shards, min_coverage, allow_partial, needed):
    asked = indexer_pb2.ProductHit(score=min_coverage).score  # as it travels
    assert answers_needed(shards, asked, allow_partial) == needed
