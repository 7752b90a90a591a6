"""Evaluators that are not ours get the answered questions only, and their output says which were left out."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nat.plugins.eval.data_models.evaluator_io import EvalOutput, EvalOutputItem

from nat_dynamo_plugin.evaluators.evaluate import NoAverage
from nat_dynamo_plugin.evaluators.failures import Failure

Evaluate = Callable[[Any], Awaitable[Any]]


def excluding(evaluate: Evaluate, failed: Mapping[str, Failure]) -> Evaluate:
    """The evaluator's function without the failed questions, which are in its output with no score and the reason.

    Args:
        evaluate: takes NAT's `EvalInput`, or its list of ATIF samples.
        failed: by the question's id as text.
    """

    async def evaluate_answered(given: Any) -> Any:
        whole = hasattr(given, "eval_input_items")
        items = given.eval_input_items if whole else list(given)
        answered = [item for item in items if _id(item) not in failed]
        if answered:
            output = await evaluate(given.model_copy(update={"eval_input_items": answered}) if whole else answered)
        else:
            output = EvalOutput(average_score=NoAverage(), eval_output_items=[])
        if isinstance(output.average_score, float) and math.isnan(output.average_score):
            output.average_score = NoAverage()
        place = {_id(item): position for position, item in enumerate(items)}
        scored = [*output.eval_output_items, *(_left_out(item, failed) for item in items if _id(item) in failed)]
        output.eval_output_items = sorted(scored, key=lambda one: place.get(str(one.id), len(place)))
        return output

    return evaluate_answered


def _id(item: Any) -> str:
    return str(_key(item))


def _key(item: Any) -> Any:
    return item.item_id if hasattr(item, "item_id") else item.id


def _left_out(item: Any, failed: Mapping[str, Failure]) -> EvalOutputItem:
    kind, error = failed[_id(item)]
    return EvalOutputItem(
        id=_key(item),
        score=None,
        reasoning={"failure": kind, "no_score_because": f"the question failed: {error}"},
        error=f"the question failed ({kind}): {error}",
    )
