"""Read back what each LLM call left in a question's trajectory.

A call is a NAT intermediate step pair CUSTOM_START/CUSTOM_END named `STEP_NAME`; the END step holds the
call's record (see `nat_dynamo_plugin.telemetry.record`). Trajectories come live from `nat eval` or from a saved
`workflow_output.json`, maybe written by another version of this package, so reading is tolerant: nothing
here raises on bad data. What could not be read becomes `None` ("not known") and is named in the question's
`problems`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from nat_dynamo_plugin.evaluators.prompt_versions import Counts, by_version
from nat_dynamo_plugin.telemetry.record import ARRIVAL_STEP_NAME, RECORD_KEY, STEP_NAME, CallRecord

MEASURED_ON_WORKFLOW = "workflow start to end"
MEASURED_ON_STEPS = "first to last recorded step"
MEASURED_ON_ARRIVAL = "arrival to workflow end"


def is_failed(call: CallRecord) -> bool:
    """Whether the call ended in an error or an HTTP status of 400 and above."""
    return call.failed


def records_from_trajectory(steps: Iterable[Any], problems: list[str] | None = None) -> list[CallRecord]:
    """The records of all LLM calls in a trajectory, in the order in which the calls ended.

    Args:
        steps: NAT `IntermediateStep` objects, or the same as plain dicts.
        problems: Gets one sentence for everything that could not be read.

    A call whose record is missing or unreadable is still a call: it is returned with nothing known about
    it. A call that started and never ended is returned last, as a failed one.
    """
    problems = problems if problems is not None else []
    started: dict[str, int] = {}
    records: list[CallRecord] = []
    for position, step in enumerate(steps):
        payload = _get(step, "payload")
        if _get(payload, "name") != STEP_NAME:
            continue
        event = _get(payload, "event_type")
        if event == "CUSTOM_START":
            started[str(_get(payload, "UUID"))] = position
        elif event == "CUSTOM_END":
            started.pop(str(_get(payload, "UUID")), None)
            raw = _get(_get(_get(payload, "metadata"), "provided_metadata"), RECORD_KEY)
            records.append(_read_record(raw, f"step {position}", problems))
    for position in started.values():
        problems.append(f"step {position}: the call started and never ended")
        records.append(CallRecord(error="the call started and never ended"))
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of a dataset as its trajectory shows it. Times are seconds since the epoch.

    `started_at` and `ended_at` are `None` when the trajectory does not tell; `measured_on` says what they
    span. `has_llm_steps`: NAT saw an LLM answer, through whatever client.
    """

    id: Any
    calls: tuple[CallRecord, ...] = ()
    has_llm_steps: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    measured_on: str | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def from_trajectory(cls, question_id: Any, steps: Iterable[Any]) -> Question:
        """Read a question from its intermediate steps (`IntermediateStep` objects or plain dicts)."""
        steps = list(steps)
        problems: list[str] = []
        calls = records_from_trajectory(steps, problems)
        started_at, ended_at, measured_on = _span(steps, problems)
        return cls(
            id=question_id,
            calls=tuple(calls),
            has_llm_steps=any(_get(_get(step, "payload"), "event_type") == "LLM_END" for step in steps),
            started_at=started_at,
            ended_at=ended_at,
            measured_on=measured_on,
            problems=tuple(problems),
        )

    @property
    def asked_an_llm(self) -> bool:
        """Whether the question made an LLM call, through this package or any other client."""
        return bool(self.calls) or self.has_llm_steps

    @property
    def answered_calls(self) -> tuple[CallRecord, ...]:
        """The calls that did not fail."""
        return tuple(call for call in self.calls if not is_failed(call))

    @property
    def served_calls(self) -> tuple[CallRecord, ...]:
        """The answered calls that a server was asked for; the others' answers came out of the response cache."""
        return tuple(call for call in self.answered_calls if call.cache is None)

    @property
    def cache_hits(self) -> int:
        """Calls answered from the response cache, which say nothing about how anybody serves."""
        return len(self.answered_calls) - len(self.served_calls)

    @property
    def flaw(self) -> str | None:
        """Why the question says nothing about how it was served, or `None`: every call was answered, with data."""
        answered = self.answered_calls
        if not self.calls:
            return f"question {self.id!r} made no LLM call through Dynamo"
        if len(answered) < len(self.calls):
            first = next(call for call in self.calls if is_failed(call))
            why = first.error or f"status {first.status}"
            failed = len(self.calls) - len(answered)
            return f"question {self.id!r}: {failed} of {len(self.calls)} LLM calls failed ({why})"
        if self.cache_hits:
            return (
                f"question {self.id!r}: {self.cache_hits} of {len(self.calls)} LLM calls came from the response cache"
            )
        silent = sum(not call.has_dynamo_data for call in answered)
        if silent:
            return f"question {self.id!r}: {silent} of {len(self.calls)} LLM calls came back without Dynamo's data"
        return None


@dataclass(slots=True, kw_only=True)
class QuestionFigures:
    """The countable facts of one question: what every evaluator reports and what the summary adds up.

    Token sums cover the calls that a server answered and that say; `None` means that no call said. Costs are in USD,
    those of failed calls included; `unpriced_calls` were answered and have none. `workers` maps a worker id to the
    number of calls it answered, `failures` a kind of failure (`CallRecord.kind`) to the number of calls. `cache_hits`
    counts the calls that the response cache answered.
    """

    calls: int = 0
    failed_calls: int = 0
    cache_hits: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    calls_without_dynamo_data: int = 0
    prefix_ids: list[str] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_versions: Counts = field(default_factory=dict)
    cost_usd: float | None = None
    saved_usd: float | None = None
    unpriced_calls: int = 0
    unpriced_attempts: int = 0
    cost_by_function: dict[str, float] = field(default_factory=dict)
    cost_by_org: dict[str, float] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, question: Question) -> QuestionFigures:
        """Count a question's calls. A failed call is not counted as one without Dynamo data."""
        answered, served = question.answered_calls, question.served_calls
        workers = Counter(str(call.worker_id) for call in served if call.worker_id is not None)
        return cls(
            calls=len(question.calls),
            failed_calls=len(question.calls) - len(answered),
            cache_hits=question.cache_hits,
            failures=dict(Counter(kind for call in question.calls if (kind := call.kind or call.failure) is not None)),
            calls_without_dynamo_data=sum(not call.has_dynamo_data for call in served),
            prefix_ids=sorted({call.prefix_id for call in question.calls if call.prefix_id is not None}),
            workers=dict(sorted(workers.items())),
            prompt_versions=by_version(question.calls),
            cost_usd=_total(call.cost_usd for call in question.calls),
            saved_usd=_total(call.saved_usd for call in question.calls),
            unpriced_calls=sum(call.cost_usd is None for call in answered),
            unpriced_attempts=sum(call.unpriced_attempts for call in question.calls),
            cost_by_function=by_function(question.calls),
            cost_by_org=_costs((call.org, call) for call in question.calls if call.org is not None),
            prompt_tokens=_total(call.prompt_tokens for call in served),
            cached_tokens=_total(call.cached_tokens for call in served),
            completion_tokens=_total(call.completion_tokens for call in served),
            started_at=question.started_at,
            ended_at=question.ended_at,
            problems=list(question.problems),
        )

    @classmethod
    def from_reasoning(cls, reasoning: Any) -> QuestionFigures | None:
        """The figures in an evaluator's saved `reasoning`, or `None` if it holds none."""
        if not isinstance(reasoning, Mapping) or not isinstance(reasoning.get("calls"), int):
            return None
        known = {f.name: reasoning[f.name] for f in fields(cls) if f.name in reasoning}
        try:
            return _figures_adapter().validate_python(known)
        except ValidationError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready data."""
        return asdict(self)


def _get(holder: Any, key: str) -> Any:
    """`holder[key]` of a mapping or `holder.key` of an object; `None` when there is none."""
    return holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)


@cache
def _record_adapter() -> TypeAdapter[CallRecord]:
    return TypeAdapter(CallRecord)


@cache
def _figures_adapter() -> TypeAdapter[QuestionFigures]:
    return TypeAdapter(QuestionFigures)


def _read_record(raw: Any, where: str, problems: list[str]) -> CallRecord:
    if not isinstance(raw, Mapping):
        found = "nothing" if raw is None else type(raw).__name__
        problems.append(f"{where}: expected the call's record under '{RECORD_KEY}', found {found}")
        return CallRecord()
    known = {f.name: raw[f.name] for f in fields(CallRecord) if f.name in raw}
    while True:
        try:
            record = _record_adapter().validate_python(known)
            break
        except ValidationError as error:
            # Each turn takes at least one named field away, so this ends with an empty record at the latest.
            wrong = {str(detail["loc"][0]): detail["msg"] for detail in error.errors(include_url=False)}
            problems.extend(
                f"{where}: {name} is {_short(known.pop(name))} ({message}); taken as not known"
                for name, message in wrong.items()
            )
    for spec in fields(record):
        value = getattr(record, spec.name)
        # Every number in a record is a count, an id, a time or a share.
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            problems.append(f"{where}: {spec.name} is {value!r}, not a number from 0 up; taken as not known")
            setattr(record, spec.name, spec.default)
    if (
        record.prompt_tokens is not None
        and record.cached_tokens is not None
        and record.cached_tokens > record.prompt_tokens
    ):
        problems.append(
            f"{where}: cached_tokens is {record.cached_tokens}, more than prompt_tokens "
            f"({record.prompt_tokens}); taken as not known"
        )
        record.cached_tokens = None
    return record


def _span(steps: list[Any], problems: list[str]) -> tuple[float | None, float | None, str | None]:
    """Start and end of a question.

    The outermost workflow counts: the WORKFLOW_START that came first, with its own WORKFLOW_END (a workflow
    called by another, or replayed from a remote one, lies inside it). A workflow that never ended has no
    duration. A question that came by a schedule (`dynamo_open_loop`) starts when it arrived, be that before or
    after its workflow started. Only trajectories saved without any workflow step are measured from the first to
    the last recorded moment.
    """
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}
    moments: list[float] = []
    arrival: float | None = None
    for step in steps:
        payload = _get(step, "payload")
        at = _time(_get(payload, "event_timestamp"))
        if at is None:
            continue
        moments.append(at)
        span_start = _time(_get(payload, "span_event_timestamp"))
        if span_start is not None:
            moments.append(span_start)
        if _get(payload, "name") == ARRIVAL_STEP_NAME and arrival is None:
            arrival = at
        event = _get(payload, "event_type")
        if event == "WORKFLOW_START":
            starts[str(_get(payload, "UUID"))] = at
        elif event == "WORKFLOW_END":
            ends[str(_get(payload, "UUID"))] = at
    if starts:
        outermost = min(starts, key=starts.__getitem__)
        end = ends.get(outermost)
        if end is None:
            problems.append("the workflow started and never ended")
            return starts[outermost], None, None
        if end < starts[outermost]:
            problems.append("the workflow ended before it started: the clock was set back")
            return None, None, None
        if arrival is not None and arrival <= end:
            return arrival, end, MEASURED_ON_ARRIVAL
        return starts[outermost], end, MEASURED_ON_WORKFLOW
    if len(set(moments)) < 2:
        return None, None, None
    return min(moments), max(moments), MEASURED_ON_STEPS


def _time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return None
    return float(value)


def by_function(calls: Iterable[CallRecord]) -> dict[str, float]:
    """What the calls of each function cost, in USD; a function is named by its path, `-` where there is none."""
    return _costs((" > ".join(call.function_path) or "-", call) for call in calls)


def _costs(calls: Iterable[tuple[str, CallRecord]]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for name, call in calls:
        if call.cost_usd is not None:
            costs[name] = costs.get(name, 0.0) + call.cost_usd
    return dict(sorted(costs.items()))


_N = TypeVar("_N", int, float)


def _total(values: Iterable[_N | None]) -> _N | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
