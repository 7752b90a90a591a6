from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nat.builder.context import Context, ContextState
from nat.profiler.prediction_trie import save_prediction_trie
from nat.profiler.prediction_trie.data_models import LLMCallPrediction, PredictionMetrics, PredictionTrieNode

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.plan.planner import CallCounters, Planner
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext


def planner(**config: Any) -> Planner:
    made = Planner.from_config(DynamoModelConfig(**{"model_name": "m", **config}))
    assert made is not None
    return made


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
    @pytest.mark.parametrize("name", ["prefix_predictions", "nvext_prediction_trie_path"])
    def test_nats_own_trie_refines_each_call(self, trie: Path, name: str) -> None:
        made = planner(**{name: trie})
        path = ContextState.get().function_path_stack.set(["agent"])
        try:
            with DynamoPrefixContext.scope("q"):
                plans = [made.plan_call()[1] for _ in range(3)]
        finally:
            ContextState.get().function_path_stack.reset(path)
        assert [p.hints.total_requests for p in plans] == [3, 3, 3]
        assert [p.expected_output_tokens for p in plans] == [40] * 3
        assert [p.last_call for p in plans] == [False, False, True]
        assert [p.latency_sensitivity for p in plans] == [3.0] * 3
        priorities = [p.priority for p in plans]
        assert None not in priorities and priorities == sorted(priorities, key=lambda p: p or 0)

    def test_a_path_it_does_not_know_leaves_the_config(self, trie: Path) -> None:
        plan = planner(prefix_predictions=trie, prefix_osl=99).plan_call()[1]
        assert plan.expected_output_tokens == 99 and plan.priority is None

    def test_a_lookup_that_fails_does_not_fail_the_call(self, trie: Path) -> None:
        made = planner(prefix_predictions=trie)

        def broken(path: list[str], call_index: int) -> None:
            raise KeyError("broken")

        made._predictions = broken
        assert made.plan_call()[1].expected_output_tokens == 512

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"prefix_predictions='.*nowhere.json': there is no such file"):
            planner(prefix_predictions=tmp_path / "nowhere.json")

    def test_a_file_that_is_no_trie_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text('{"a": 1}')
        with pytest.raises(ValueError, match="is no prediction trie"):
            planner(prefix_predictions=tmp_path / "x.json")


class TestSensitivity:
    def test_the_decorator_gives_priority_cut_to_the_limit(self) -> None:
        with Context.get().push_latency_sensitivity(50):
            plan = planner(max_sensitivity=9).plan_call()[1]
        assert plan.priority == 9 and plan.latency_sensitivity == 9.0

    def test_nats_default_level_is_nobodys_word(self) -> None:
        plan = planner().plan_call()[1]
        assert plan.priority is None and plan.latency_sensitivity is None


def test_hints_off_make_no_planner() -> None:
    assert Planner.from_config(DynamoModelConfig(model_name="m", prefix_template=None)) is None
    assert Planner.from_config(DynamoModelConfig(model_name="m", enable_nvext_hints=False)) is None


def test_dialects_are_said_in_order() -> None:
    made = planner(prefix_wire=["annotations", "dynamo", "prefix_headers"])
    with DynamoPrefixContext.scope("q"), DynamoHints.scope(osl=3):
        said = made.say(made.plan_call()[1])
    assert [name for name, _ in said.headers][:2] == [b"x-dynamo-session-id", b"x-prefix-id"]
    assert said.annotations[0] == "prefix_id:q" and dict(said.agent_hints)["osl"] == 3


def test_no_dialect_says_nothing() -> None:
    made = planner(prefix_wire=[])
    assert made.say(made.plan_call()[1]) == ((), (), ())


def test_counters_are_bounded_in_number() -> None:
    counters = CallCounters(max_chains=3)
    for chain in "abcd":
        assert counters.next_index(chain) == 0
    assert counters.next_index("d") == 1 and len(counters) == 3


def test_counters_forget_what_is_old() -> None:
    now = 0.0
    counters = CallCounters(ttl_s=10, clock=lambda: now)
    assert [counters.next_index("a"), counters.next_index("a"), counters.next_index("b")] == [0, 1, 0]
    now = 10.0
    assert counters.next_index("a") == 2
    now = 20.5
    assert counters.next_index("b") == 0, "b was not called for more than 10 s"
    assert counters.next_index("c") == 0 and len(counters) == 2, "a is gone, too"
