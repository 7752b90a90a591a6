"""Which questions failed, and of what. They have no part in any average: what a server refused says nothing about it.

A question failed if its workflow raised, if one of its LLM calls ended in an error (whatever the workflow made of that:
a half answer is none), or if it was cut, which is to say never run to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nat_dynamo_plugin.evaluators.records import Question, is_failed
from nat_dynamo_plugin.nearest import hidden

CUT = "not_run"
"""The kind of failure of a question that was never run to its end."""

_LEFT = "left"
"""Kind of a call whose reader had enough before its end, which is no failure of a question that has an answer."""

MAX_ERROR = 1000
"""Characters of an error that are kept."""


class Failure(NamedTuple):
    """Why a question has no answer.

    Attributes:
        kind: in one word: the kind of the failed LLM call (`CallRecord.kind`), the exception's class, `not_run`.
        error: in the words of whoever failed; no secret in it.
    """

    kind: str
    error: str


class FailedAnswer(str):
    """What stands for the answer of a question whose workflow raised: an empty text that knows why it is empty."""

    failure: Failure

    def __new__(cls, failure: Failure) -> FailedAnswer:
        made = super().__new__(cls, "")
        made.failure = failure
        return made

    @classmethod
    def of(cls, error: BaseException) -> FailedAnswer:
        """What stands for an answer where there is an exception."""
        return cls(Failure(type(error).__name__, _told(str(error) or repr(error))))


def failure_of(output: Any, question: Question) -> Failure | None:
    """Why a question failed, or `None` if it was answered.

    Args:
        output: of its workflow.
        question: as its trajectory shows it.
    """
    failed = [call for call in question.calls if is_failed(call) and call.error_type != _LEFT]
    raised = output.failure if isinstance(output, FailedAnswer) else None
    if failed:
        # The call is the cause, and its kind is one of few; an exception's class is the framework's.
        last = failed[-1]
        error = _told(last.error or f"HTTP status {last.status}")
        return Failure(
            last.kind or last.failure or "_OTHER", f"{raised.kind}: {raised.error} ({error})" if raised else error
        )
    if raised:
        return raised
    nothing = not output or output != output  # pandas has NaN for what is missing
    # Without any step of its workflow (a filter may have taken them) the calls show that it ran.
    is_filtered = question.started_at is None and bool(question.calls)
    if nothing and question.ended_at is None and not is_filtered:
        return Failure(CUT, "the question was not run to its end")
    return None


def item_failure(item: Any) -> Failure | None:
    """Why a question failed, from NAT's `EvalInputItem`."""
    return failure_of(item.output_obj, Question.from_trajectory(item.id, item.trajectory))


def count(failures: Iterable[Failure | None]) -> dict[str, int]:
    """How many questions failed of what, the most frequent first."""
    return dict(Counter(one.kind for one in failures if one is not None).most_common())


def told(failures: Mapping[str, int], questions: int) -> str:
    """`3 of 24 questions failed (503 2, ConnectError 1)`."""
    number = sum(failures.values())
    kinds = ", ".join(f"{kind} {n}" for kind, n in failures.items())
    return f"{number:,} of {questions:,} questions failed" + (f" ({kinds})" if kinds else "")


def _told(error: str) -> str:
    text = str(hidden(error))
    return text if len(text) <= MAX_ERROR else text[:MAX_ERROR] + "..."
