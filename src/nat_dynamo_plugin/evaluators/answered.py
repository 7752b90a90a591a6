"""`dynamo_answered`: the share of questions that were answered, what the others failed of; how a journal is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nat.data_models.evaluator import EvalInput, EvaluatorBaseConfig
from pydantic import ConfigDict, Field, field_validator, model_validator

from nat_dynamo_plugin.nearest import refuse_unknown_fields

if TYPE_CHECKING:
    from nat_dynamo_plugin.evaluators.evaluate import MetricOutput

EVALUATION = "nat.plugins.eval.runtime.evaluate"
"""NAT's module that runs an evaluation. `nat eval` has loaded it before it loads its plugins; other commands do not."""

Resume = Literal["auto"] | bool


class AnsweredConfig(EvaluatorBaseConfig, name="dynamo_answered"):  # type: ignore[call-arg]
    """Share of the questions that were answered, 0 to 1, failures by kind, and how the evaluation keeps its journal.

    Without it an evaluation of a `_type: dynamo` model keeps its journal too, as the defaults here say.
    """

    # Built on first use, for every `nat` command imports this module.
    model_config = ConfigDict(extra="forbid", defer_build=True)

    journal: bool = Field(
        default=True,
        description="Write answers and records to journal.jsonl in the output folder as they come, and let the other "
        "questions go on when one fails. false: as NAT does, which writes at the end and stops at the first failure.",
    )
    resume: Resume = Field(
        default="auto",
        description="What to do with a journal that is in the output folder. auto: go on with it if the run before was "
        "cut or had failures, and asked the same of the same models. true: go on with it whatever the models are. "
        "false: begin anew.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_field(cls, values: Any) -> Any:
        refuse_unknown_fields(values, cls.model_fields, "this evaluator")
        return values

    @field_validator("resume", mode="before")
    @classmethod
    def _resume_is_known(cls, value: Any) -> Any:
        word = value.strip().lower() if isinstance(value, str) else value
        known = {"auto": "auto", "true": True, "false": False, True: True, False: False}
        if not isinstance(word, str | bool) or word not in known:
            near = "; did you mean auto?" if isinstance(word, str) and word.startswith("a") else ""
            raise ValueError(f"resume={value!r} is not allowed: auto, true or false{near}")
        return known[word]


def evaluate_answered(eval_input: EvalInput) -> MetricOutput:
    """Score each question: 1 if it was answered, 0 if not, with the kind of the failure."""
    from nat.plugins.eval.data_models.evaluator_io import EvalOutputItem

    from nat_dynamo_plugin.evaluators.evaluate import MetricOutput, MetricSummary, NoAverage
    from nat_dynamo_plugin.evaluators.failures import count, item_failure, told

    failures = {item.id: item_failure(item) for item in eval_input.eval_input_items}
    items = [
        EvalOutputItem(
            id=key,
            score=0.0 if failure else 1.0,
            reasoning={"failure": failure.kind, "error": failure.error} if failure else {},
            error=failure.error if failure else None,
        )
        for key, failure in failures.items()
    ]
    by_kind = count(failures.values())
    return MetricOutput(
        average_score=sum(item.score for item in items) / len(items) if items else NoAverage(),
        eval_output_items=items,
        metric=MetricSummary(
            type=AnsweredConfig.static_type(),
            unit="share",
            better="higher",
            statistic="mean",
            meaning="questions that were answered",
            questions=len(items),
            scored_questions=len(items),
            samples=len(items),
            failures=by_kind,
            problem=told(by_kind, len(items)) if by_kind else None if items else "the dataset is empty",
        ),
    )
