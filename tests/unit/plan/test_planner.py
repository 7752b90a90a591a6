from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from nat.builder.context import Context, ContextState
from nat.profiler.prediction_trie import save_prediction_trie
from nat.profiler.prediction_trie.data_models import LLMCallPrediction, PredictionMetrics, PredictionTrieNode

from nat_dynamo_plugin.plan.planner import Planner
from nat_dynamo_plugin.plan.predictions import load_predictions
from nat_dynamo_plugin.plan.serving import ServingPlan
from nat_dynamo_plugin.question import once
from nat_dynamo_plugin.question.hints import CallPrediction, DynamoHints, PrefixHints, PrefixLevel
from nat_dynamo_plugin.question.identity import CallIdentity
from nat_dynamo_plugin.question.ids import PrefixTemplate
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

CONFIG = PrefixHints(total_requests=10, osl=PrefixLevel.MEDIUM, iat=PrefixLevel.MEDIUM)


def planner(hints: PrefixHints = CONFIG, **more: Any) -> Planner[ServingPlan]:
    """A planner that says its plans as they are."""
    return Planner("nat-dynamo-{uuid}", hints, say=lambda plan: plan, **more)


def metrics(value: float) -> PredictionMetrics:
    return PredictionMetrics(sample_count=3, mean=value, p50=value, p90=value, p95=value)


@pytest.fixture
def trie(tmp_path: Path) -> Path:
    def prediction(remaining: float) -> LLMCallPrediction:
        return LLMCallPrediction(
            remaining_calls=metrics(remaining),
            output_tokens=metrics(40),
            interarrival_ms=metrics(20),
            latency_sensitivity=3,
        )

    agent = PredictionTrieNode(
        name="agent", predictions_by_call_index={1: prediction(2), 2: prediction(1), 3: prediction(0)}
    )
    root = PredictionTrieNode(name="root", children={"agent": agent})
    path = tmp_path / "trie.json"
    save_prediction_trie(root, path)
    return path


class TestPredictions:
    def test_nats_own_trie_refines_each_call(self, trie: Path) -> None:
        made = planner(predictions=load_predictions(trie))
        path = ContextState.get().function_path_stack.set(["agent"])
        try:
            with DynamoPrefixContext.scope("q"):
                plans = [made.next_turn().plan for _ in range(3)]
        finally:
            ContextState.get().function_path_stack.reset(path)
        assert [p.hints.total_requests for p in plans] == [3, 3, 3]
        assert [p.expected_output_tokens for p in plans] == [40] * 3
        assert [p.last_call for p in plans] == [False, False, True]
        assert [p.latency_sensitivity for p in plans] == [3.0] * 3
        assert [p.calls_to_come for p in plans] == [2.0, 1.0, 0.0]
        priorities = [p.priority for p in plans]
        assert None not in priorities and priorities == sorted(priorities, key=lambda p: p or 0)

    def test_a_path_it_does_not_know_leaves_the_config(self, trie: Path) -> None:
        plan = planner(PrefixHints(osl=99), predictions=load_predictions(trie)).next_turn().plan
        assert plan.expected_output_tokens == 99 and plan.priority is None

    def test_a_lookup_that_fails_does_not_fail_the_call(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(path: list[str], call_index: int) -> None:
            raise KeyError("broken")

        once._said.clear()
        made = planner(predictions=broken)
        with caplog.at_level(logging.WARNING, "nat_dynamo_plugin"):
            assert [made.next_turn().plan.expected_output_tokens for _ in range(3)] == [512] * 3
        (told,) = caplog.messages
        assert told == "The prediction trie failed for ()" and "broken" in caplog.text

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"prefix_predictions='.*nowhere.json': there is no such file"):
            load_predictions(tmp_path / "nowhere.json")

    def test_a_file_that_is_no_trie_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text('{"a": 1}')
        with pytest.raises(ValueError, match="is no prediction trie"):
            load_predictions(tmp_path / "x.json")


class TestSensitivity:
    def test_the_decorator_gives_priority_cut_to_the_limit(self) -> None:
        with Context.get().push_latency_sensitivity(50):
            plan = planner(max_sensitivity=9).next_turn().plan
        assert plan.priority == 9 and plan.latency_sensitivity == 9.0

    def test_a_prediction_is_cut_to_the_limit_too(self) -> None:
        def predicts(path: list[str], call_index: int) -> CallPrediction:
            return CallPrediction(latency_sensitivity=5000.0 if call_index == 1 else 4.5)

        made = planner(max_sensitivity=10, predictions=predicts)
        assert [made.next_turn().plan.latency_sensitivity for _ in range(2)] == [10.0, 4.5]

    @pytest.mark.parametrize(("given", "sent"), [(-5, 0), (0, 0), (1000, 1000), (1001, 1000)])
    def test_the_limits_are_0_and_1000_by_default(self, given: int, sent: int) -> None:
        def predicts(path: list[str], call_index: int) -> CallPrediction:
            return CallPrediction(latency_sensitivity=float(given))

        assert planner(predictions=predicts).next_turn().plan.latency_sensitivity == float(sent)
        assert planner()._cut(given) == sent

    def test_nats_default_level_is_nobodys_word(self) -> None:
        plan = planner().next_turn().plan
        assert plan.priority is None and plan.latency_sensitivity is None


class TestTurns:
    def test_who_which_call_and_what_is_said(self) -> None:
        made = planner()
        with DynamoPrefixContext.scope("q"):
            turns = [made.next_turn() for _ in range(3)]
        assert [turn.index for turn in turns] == [0, 1, 2]
        assert all(turn.identity.prefix_id == "q" == turn.plan.session_id for turn in turns)
        assert all(turn.said is turn.plan for turn in turns)

    def test_a_question_that_is_asked_again_begins_anew(self) -> None:
        made = planner()
        for _ in range(2):
            with DynamoPrefixContext.scope("ticket-1"), DynamoHints.scope(total_requests=3):
                turns = [made.next_turn() for _ in range(3)]
            assert [turn.index for turn in turns] == [0, 1, 2]
            assert [turn.plan.calls_to_come for turn in turns] == [2.0, 1.0, 0.0]
            assert [turn.plan.last_call for turn in turns] == [False, False, True]

    def test_parallel_runs_of_an_agent_are_counted_apart(self) -> None:
        made = planner()
        context = Context.get()
        with DynamoPrefixContext.scope("q"), context.push_active_function("<workflow>", input_data=None):
            for _ in range(2):
                with context.push_active_function("agent", input_data=None):
                    assert [made.next_turn().index for _ in range(2)] == [0, 1]

    def test_what_was_learned_refines_the_hints(self) -> None:
        asked: list[tuple[Any, ...]] = []

        def expect(identity: CallIdentity, kind: str | None, hints: PrefixHints, index: int) -> PrefixHints:
            asked.append((identity.prefix_id, kind, hints, index))
            return PrefixHints(osl=7)

        made = planner(expect=expect)
        with DynamoPrefixContext.scope("q"), DynamoHints.scope(kind="mail"):
            assert made.next_turn().plan.expected_output_tokens == 7
        assert asked == [("q", "mail", CONFIG, 0)]

    def test_learning_that_fails_leaves_the_hints(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_: object) -> PrefixHints:
            raise RuntimeError("broken")

        once._said.clear()
        made = planner(expect=broken)
        with caplog.at_level(logging.WARNING, "nat_dynamo_plugin"):
            assert [made.next_turn().plan.expected_output_tokens for _ in range(2)] == [512] * 2
        (told,) = caplog.messages
        assert told == "What was learned could not be used" and "broken" in caplog.text

    def test_clients_of_one_server_may_count_together(self) -> None:
        one = planner()
        other = planner(counters=one.counters)
        with DynamoPrefixContext.scope("q"):
            assert [made.next_turn().index for made in (one, other, one)] == [0, 1, 2]

    def test_a_template_may_come_ready(self) -> None:
        template = PrefixTemplate("mine-{uuid}")
        made = Planner(template, CONFIG, say=lambda plan: plan)
        assert made.next_turn().identity.prefix_id.startswith("mine-")

    def test_where_nobody_asks_no_cluster_is_crowded(self) -> None:
        assert planner().next_turn().plan.speculative_prefill

    @pytest.mark.parametrize("crowded", [True, False])
    def test_a_crowded_cluster_is_not_asked_to_warm(self, crowded: bool) -> None:
        assert planner(crowded=lambda: crowded).next_turn().plan.speculative_prefill is not crowded
