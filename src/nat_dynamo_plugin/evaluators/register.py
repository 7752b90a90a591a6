"""The metrics that NAT gets to know. A new one is a file of its own and a line here."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any, cast

from nat.builder.builder import EvalBuilder
from nat.builder.evaluator import EvaluatorInfo
from nat.cli.register_workflow import register_evaluator
from nat.data_models.evaluator import EvalInput

from nat_dynamo_plugin.evaluators.answered import EVALUATION, AnsweredConfig, evaluate_answered
from nat_dynamo_plugin.evaluators.cost import CostConfig
from nat_dynamo_plugin.evaluators.kv_reuse import KvReuseConfig
from nat_dynamo_plugin.evaluators.metric import DynamoMetricConfig
from nat_dynamo_plugin.evaluators.question_latency import QuestionLatencyConfig
from nat_dynamo_plugin.evaluators.ttft import TtftConfig
from nat_dynamo_plugin.evaluators.worker_stickiness import WorkerStickinessConfig

METRICS: tuple[type[DynamoMetricConfig], ...] = (
    CostConfig,
    KvReuseConfig,
    QuestionLatencyConfig,
    TtftConfig,
    WorkerStickinessConfig,
)


async def build(config: DynamoMetricConfig, _builder: EvalBuilder) -> AsyncIterator[EvaluatorInfo]:
    """The evaluator of a metric.

    It takes NAT's legacy lane (`evaluate_fn`, intermediate steps): the ATIF conversion of NAT 1.9 drops custom steps.
    """
    # It needs NAT's evaluation package, which is an extra and slow to import.
    from nat_dynamo_plugin.evaluators.evaluate import MetricOutput, evaluate

    metric = config.metric()

    async def evaluate_fn(eval_input: EvalInput) -> MetricOutput:
        return evaluate(metric, config, eval_input.eval_input_items)

    # NAT annotates a plain function here and awaits its result.
    yield EvaluatorInfo(config=config, evaluate_fn=cast(Any, evaluate_fn), description=metric.meaning)


async def build_answered(config: AnsweredConfig, _builder: EvalBuilder) -> AsyncIterator[EvaluatorInfo]:
    """The evaluator of which questions were answered; with it the journal is kept, whoever runs the evaluation."""
    keep_journals()

    async def evaluate_fn(eval_input: EvalInput) -> Any:
        return evaluate_answered(eval_input)

    yield EvaluatorInfo(config=config, evaluate_fn=cast(Any, evaluate_fn), description="questions that were answered")


def keep_journals() -> None:
    """See `keeping.install`. What it takes is imported where NAT's evaluation is loaded only, for it takes a while."""
    if EVALUATION in sys.modules:
        from nat_dynamo_plugin.evaluators.keeping import install

        install()


register_evaluator(config_type=AnsweredConfig)(build_answered)
keep_journals()

for config_type in METRICS:
    register_evaluator(config_type=config_type)(build)
