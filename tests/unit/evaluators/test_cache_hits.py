"""Answers of the response cache are in no figure about how anybody serves, and are counted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from nat.data_models.evaluator import EvalInputItem

from nat_dynamo_plugin.evaluators.evaluate import evaluate
from nat_dynamo_plugin.evaluators.kv_reuse import KvReuseConfig
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig
from nat_dynamo_plugin.evaluators.question_latency import QuestionLatencyConfig
from nat_dynamo_plugin.evaluators.records import Question, QuestionFigures
from nat_dynamo_plugin.evaluators.ttft import TtftConfig
from nat_dynamo_plugin.evaluators.worker_stickiness import WorkerStickinessConfig
from nat_dynamo_plugin.telemetry.record import CallRecord

from .conftest import question

SERVED = CallRecord(
    status=200,
    worker_id=1,
    prompt_tokens=10,
    cached_tokens=5,
    completion_tokens=2,
    server_ttft_ms=7.0,
    client_ttft_ms=9.0,
)
HIT = CallRecord(
    status=200,
    cache="exact",
    attempts=0,
    prompt_tokens=100,
    cached_tokens=100,
    completion_tokens=50,
    client_ttft_ms=0.1,
)


def item(name: str, *calls: CallRecord) -> EvalInputItem:
    return EvalInputItem(
        id=name,
        input_obj="q",
        expected_output_obj="a",
        output_obj="a",
        expected_trajectory=[],
        trajectory=question(*calls),
        full_dataset_entry={},
    )


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (KvReuseConfig(), 0.5),
        (TtftConfig(), 7.0),
        (TtftConfig(measured_at="client"), 9.0),
        (WorkerStickinessConfig(), 1.0),
    ],
)
def test_hits_are_left_out_and_counted(config: DynamoMetricConfig, value: float) -> None:
    out = evaluate(config.metric(), config, [item("a", SERVED, HIT, HIT), item("b", SERVED)])
    assert out.average_score == value
    assert out.metric.cache_hits == 2 and out.metric.covered_calls == out.metric.calls == 2
    assert "2 LLM calls came from the response cache" in str(out.metric.problem)


def test_a_question_with_a_hit_has_no_latency_and_the_others_have_an_average() -> None:
    config = QuestionLatencyConfig()
    out = evaluate(config.metric(), config, [item("a", SERVED, HIT), item("b", SERVED)])
    assert out.average_score == 2.0 and [one.score for one in out.eval_output_items] == [None, 2.0]


@pytest.mark.parametrize("config", [KvReuseConfig(), TtftConfig(), QuestionLatencyConfig(), WorkerStickinessConfig()])
def test_hits_alone_have_no_average(config: Any) -> None:
    out = evaluate(config.metric(), config, [item("a", HIT), item("b", HIT)])
    assert math.isnan(out.average_score) and "2 LLM calls came from the response cache" in str(out.metric.problem)


def test_figures_count_what_was_computed() -> None:
    figures = QuestionFigures.of(Question.from_trajectory("a", question(SERVED, HIT)))
    assert (figures.calls, figures.cache_hits, figures.calls_without_dynamo_data) == (2, 1, 0)
    assert (figures.prompt_tokens, figures.cached_tokens, figures.completion_tokens) == (10, 5, 2)


def test_who_is_strict_wants_no_hit() -> None:
    flaw = Question.from_trajectory("a", question(SERVED, HIT)).flaw
    assert flaw is not None and "1 of 2 LLM calls came from the response cache" in flaw
