from __future__ import annotations

import math
from typing import Any

import pytest
from nat.data_models.evaluator import EvalInputItem

from nat_dynamo_plugin.evaluators.cost import Cost, CostConfig
from nat_dynamo_plugin.evaluators.evaluate import MetricOutput, evaluate
from nat_dynamo_plugin.evaluators.kv_reuse import KvReuseConfig
from nat_dynamo_plugin.evaluators.records import Question, QuestionFigures
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME, CallRecord


def a_call(cost: float | None = 0.5, **fields: Any) -> CallRecord:
    usage: dict[str, Any] = {"prompt_tokens": 1000, "cached_tokens": 900, "completion_tokens": 10}
    return CallRecord(status=200, cost_usd=cost, function_path=("flow", "agent"), **{**usage, **fields})


def question(name: str, *calls: CallRecord) -> Any:
    steps = [
        {
            "payload": {
                "name": STEP_NAME,
                "event_type": "CUSTOM_END",
                "UUID": str(n),
                "metadata": {"provided_metadata": {RECORD_KEY: call.to_dict()}},
            }
        }
        for n, call in enumerate(calls)
    ]
    return EvalInputItem.model_construct(id=name, output_obj="x", trajectory=steps)


def scored(*questions: Any, config: Any = None) -> MetricOutput:
    config = config or CostConfig()
    return evaluate(config.metric(), config, questions)


def test_the_cost_of_a_question_is_that_of_all_its_calls() -> None:
    output = scored(question("a", a_call(0.5), a_call(0.25)), question("b", a_call(0.25)))
    assert [item.score for item in output.eval_output_items] == [0.75, 0.25]
    assert output.average_score == 0.5
    assert (output.metric.unit, output.metric.better) == ("USD", "lower")
    assert output.eval_output_items[0].reasoning["cost_by_function"] == {"flow > agent": 0.75}


def test_a_failed_question_is_in_no_average() -> None:
    output = scored(question("a", a_call(0.5), a_call(0.25, error="cut short")), question("b", a_call(0.25)))
    assert [item.score for item in output.eval_output_items] == [None, 0.25]
    assert output.average_score == 0.25


def test_a_question_with_a_call_of_unknown_cost_has_none() -> None:
    output = scored(question("a", a_call(0.5), a_call(None)))
    assert output.eval_output_items[0].score is None
    assert math.isnan(output.average_score)
    assert "cost:" in str(output.eval_output_items[0].error)


def test_an_answer_out_of_the_cache_costs_0() -> None:
    output = scored(question("a", a_call(0.0, cost_source="cache", saved_usd=0.5)))
    assert output.average_score == 0


def test_covered_are_calls_with_a_cost() -> None:
    asked = Question.from_trajectory("a", question("a", a_call(), a_call(None), a_call(None, error="x")).trajectory)
    assert Cost().covered(asked) == (1, 2)


def test_figures_tell_costs_apart() -> None:
    calls = (
        a_call(0.5, org="o1"),
        a_call(0.25, org="o2", unpriced_attempts=2),
        a_call(None),
        a_call(0.125, error="x"),
    )
    figures = QuestionFigures.of(Question(id="a", calls=calls))
    assert figures.cost_usd == 0.875
    assert (figures.unpriced_calls, figures.unpriced_attempts) == (1, 2)
    assert figures.cost_by_org == {"o1": 0.5, "o2": 0.25}
    assert QuestionFigures.from_reasoning(figures.to_dict()) == figures


def test_kv_reuse_of_an_openai_model_is_its_cached_share() -> None:
    calls = [a_call(None, prompt_tokens=1000, cached_tokens=0), a_call(None, prompt_tokens=3000, cached_tokens=2400)]
    output = scored(question("a", *calls), config=KvReuseConfig())
    assert output.average_score == pytest.approx(0.6)
    assert output.metric.problem is None
