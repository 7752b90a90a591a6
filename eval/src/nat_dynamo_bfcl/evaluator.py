"""The evaluator `bfcl_accuracy`: BFCL's own multi-turn checker over the calls that the agent executed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.plugins.eval.data_models.evaluator_io import EvalOutputItem
from nat.plugins.eval.evaluator.base_evaluator import BaseEvaluator

from nat_dynamo_bfcl.benchmark import check, get_task
from nat_dynamo_bfcl.result import Result
from nat_dynamo_plugin.evaluators.evaluate import MetricOutput, MetricSummary, NoAverage
from nat_dynamo_plugin.evaluators.failures import item_failure, told

MAX_DETAIL = 500
"""Characters of one detail of the checker's error that go into the reasoning; whole states can be huge."""


class BfclAccuracy(BaseEvaluator):
    """Scores a question 1.0 if BFCL's checker accepts its calls, else 0.0, and says why; no score if it failed."""

    def __init__(self, max_concurrency: int = 4) -> None:
        super().__init__(max_concurrency, tqdm_desc="Checking BFCL calls")

    async def evaluate(self, eval_input: EvalInput) -> MetricOutput:
        items = (await super().evaluate(eval_input)).eval_output_items
        judged = [item for item in items if item.score is not None]
        wrong = [item for item in judged if item.score != 1.0]
        failures = dict(Counter(item.reasoning["failure"] for item in items if item.score is None).most_common())
        return MetricOutput(
            # NAT's own average is rounded to two places, which makes 399 of 400 a perfect score.
            average_score=1 - len(wrong) / len(judged) if judged else NoAverage(),
            eval_output_items=items,
            metric=MetricSummary(
                type="bfcl_accuracy",
                unit="share",
                better="higher",
                statistic="mean",
                meaning="questions solved, by BFCL's checker",
                questions=len(items),
                scored_questions=len(judged),
                samples=len(judged),
                failures=failures,
                problem=_problem(wrong, failures, len(items)),
            ),
        )

    async def evaluate_item(self, item: EvalInputItem) -> EvalOutputItem:
        failure = item_failure(item)
        if failure is not None:
            # A half answer is the server's fault and says nothing about the model.
            return EvalOutputItem(
                id=item.id, score=None, reasoning={"failure": failure.kind, "error": failure.error}, error=failure.error
            )
        reasoning = judge(item.output_obj)
        return EvalOutputItem(id=item.id, score=0.0 if "error" in reasoning else 1.0, reasoning=reasoning)


def judge(output: Any) -> dict[str, Any]:
    """BFCL's verdict on a workflow's output. An `error` in it means that the question is not solved."""
    if not output:
        return {"error": "the workflow gave no output"}
    try:
        result = Result(**json.loads(output))
    except (TypeError, ValueError) as error:
        return {"error": f"not an output of bfcl_agent: {_short(output)} ({error})"}
    reasoning: dict[str, Any] = {
        "task": result.id,
        "llm_calls": result.llm_calls,
        "executed_calls": sum(len(step) for turn in result.calls for step in turn),
    }
    if result.error:
        return {**reasoning, "error": result.error, "error_type": "agent"}
    verdict = check(get_task(result.id), result.calls)
    if verdict["valid"]:
        return reasoning
    return {
        **reasoning,
        "error": verdict["error_message"],
        "error_type": verdict["error_type"],
        "details": {key: _short(value) for key, value in verdict.get("details", {}).items()},
    }


def _problem(wrong: list[EvalOutputItem], failures: dict[str, int], questions: int) -> str | None:
    problems = [told(failures, questions)] if failures else []
    if wrong:
        problems.append(f"{len(wrong)} not solved, the first: {wrong[0].id}: {wrong[0].reasoning['error']}")
    return "; ".join(problems) or None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}... ({len(text)} characters)"
