from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.dialects.dynamo import Dynamo
from nat_dynamo_plugin.plan.serving import (
    HALF_PRIORITY_TOKENS,
    MAX_OVERTAKING_S,
    ServingPlan,
    calls_to_come,
    make_plan,
    work_priority,
    work_to_come,
)
from nat_dynamo_plugin.question.hints import I32_MAX, I32_MIN, PrefixHints, PrefixLevel
from nat_dynamo_plugin.question.identity import CallIdentity

IDENTITY = CallIdentity("q", "q/a", "q", ("<workflow>", "a"))


def plan(index: int = 0, **hints: object) -> ServingPlan:
    return make_plan(IDENTITY, PrefixHints(**hints), index)  # type: ignore[arg-type]


class TestPriority:
    @given(st.floats(0, 1e12))
    def test_in_range(self, work: float) -> None:
        assert 0 <= work_priority(work) <= MAX_OVERTAKING_S

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    def test_less_work_is_never_later(self, one: float, other: float) -> None:
        less, more = sorted((one, other))
        assert work_priority(less) >= work_priority(more)

    def test_the_documented_points(self) -> None:
        assert work_priority(0) == MAX_OVERTAKING_S
        assert work_priority(HALF_PRIORITY_TOKENS) == MAX_OVERTAKING_S / 2

    def test_one_call_less_of_a_short_agent_counts(self) -> None:
        # BFCL: some nine calls of 31 tokens.
        priorities = [work_priority(31 * calls) for calls in range(12)]
        assert len(set(priorities)) == 12

    def test_a_constant_total_gives_none(self) -> None:
        for index in range(10):
            assert plan(index, total_requests=10, osl=PrefixLevel.LOW).priority is None

    def test_a_known_total_rises_call_by_call(self) -> None:
        priorities = [plan(index, total_requests=6, total_is_known=True, osl=100).priority for index in range(6)]
        assert None not in priorities
        assert priorities == sorted(priorities, key=lambda p: p or 0)
        assert priorities[-1] == MAX_OVERTAKING_S

    def test_a_chain_that_outran_its_total_claims_nothing(self) -> None:
        assert plan(7, total_requests=6, total_is_known=True, osl=100).priority is None

    def test_an_explicit_priority_wins(self) -> None:
        assert plan(0, total_requests=6, total_is_known=True, osl=100, priority=-3).priority == -3

    @given(st.integers())
    def test_an_explicit_priority_is_cut_to_i32(self, priority: int) -> None:
        sent = plan(0, priority=priority).priority
        assert sent is not None
        assert I32_MIN <= sent <= I32_MAX

    def test_it_travels_as_the_priority_that_ages(self) -> None:
        made = plan(0, total_requests=1000, remaining_calls=2.5, total_is_known=True, osl=40)
        said = Dynamo().say(made).members["nvext"]["agent_hints"]
        assert said["priority"] == work_priority(100)
        assert "strict_priority" not in said


class TestWork:
    def test_calls_to_come_times_tokens(self) -> None:
        hints = PrefixHints(total_requests=5, total_is_known=True, osl=40)
        assert work_to_come(hints, calls_to_come(hints, 0)) == 160
        assert work_to_come(hints, calls_to_come(hints, 4)) == 0

    def test_a_prediction_is_believed(self) -> None:
        hints = PrefixHints(total_requests=5, remaining_calls=1.5, total_is_known=True, osl=PrefixLevel.LOW)
        assert calls_to_come(hints, 0) == 1.5
        assert work_to_come(hints, 1.5) == pytest.approx(192)

    def test_unknown(self) -> None:
        assert work_to_come(PrefixHints(osl=40), None) is None
        assert work_to_come(PrefixHints(total_requests=9, osl=40), 8.0) is None

    def test_the_plan_says_how_many_calls_are_to_come(self) -> None:
        assert [plan(index, total_requests=3).calls_to_come for index in range(4)] == [2.0, 1.0, 0.0, None]
        assert plan(0, total_requests=3, remaining_calls=0.5, total_is_known=True).calls_to_come == 0.5
        assert plan(0).calls_to_come is None


class TestSessions:
    def test_one_request_needs_no_session(self) -> None:
        made = plan(0, total_requests=1)
        assert (made.session_id, made.parent_session_id, made.speculative_prefill) == (None, None, False)

    def test_a_chain_names_itself_and_who_called_it(self) -> None:
        made = plan(0, total_requests=3, total_is_known=True, osl=100)
        assert made.identity is IDENTITY
        assert (made.session_id, made.parent_session_id) == ("q/a", "q")
        assert (made.calls_to_come, made.work_tokens, made.expected_output_tokens) == (2.0, 200.0, 100)
        assert plan(0).expected_output_tokens is None

    def test_the_last_call_is_marked_where_it_is_known(self) -> None:
        assert plan(4, total_requests=5, total_is_known=True).last_call
        assert not plan(4, total_requests=5).last_call
        assert not plan(3, total_requests=5, total_is_known=True).last_call

    def test_warming_needs_a_next_call_that_is_likely(self) -> None:
        for to_come, warm in ((0.49, False), (0.5, True), (1.0, True)):
            assert plan(0, total_requests=9, remaining_calls=to_come, iat=100).speculative_prefill is warm
        assert not plan(0, iat=100).speculative_prefill

    @pytest.mark.parametrize(("iat", "index", "warm"), [(99, 0, False), (100, 0, True), (100, 9, False)])
    def test_warming(self, iat: int, index: int, warm: bool) -> None:
        assert plan(index, total_requests=10, iat=iat).speculative_prefill is warm
