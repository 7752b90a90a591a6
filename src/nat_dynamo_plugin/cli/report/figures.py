"""The figures of a page: what its tables and pictures show, counted from a run. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nat_dynamo_plugin.cli.report.misses import Miss, Sent, ttft_ms
from nat_dynamo_plugin.cli.report.run import Asked
from nat_dynamo_plugin.drawing.charts import quantile_of


@dataclass(slots=True, kw_only=True)
class FailureCause:
    """Failures of one kind.

    Attributes:
        kind: in one word.
        questions: ids of those that failed of it.
        calls: failed calls of this kind, those included after which the question went on.
        error: the first one's words.
        first: the question that it happened to first.
        workers: of the failed calls, where one is known.
    """

    kind: str
    questions: list[str] = field(default_factory=list)
    calls: int = 0
    error: str = ""
    first: str = ""
    workers: Counter[int] = field(default_factory=Counter)


def failure_causes(questions: Iterable[Asked]) -> list[FailureCause]:
    """Failed questions and calls by kind: those that cost most questions first."""
    causes: dict[str, FailureCause] = {}
    for asked in questions:
        if asked.failure is not None:
            cause = causes.setdefault(asked.failure.kind, FailureCause(kind=asked.failure.kind))
            cause.questions.append(asked.id)
            cause.error = cause.error or asked.failure.error
            cause.first = cause.first or asked.id
        for call in asked.calls:
            kind = call.record.kind or call.record.failure
            if not call.record.failed or kind is None:
                continue
            cause = causes.setdefault(kind, FailureCause(kind=kind))
            cause.calls += 1
            cause.error = cause.error or call.record.error or f"HTTP status {call.record.status}"
            cause.first = cause.first or asked.id
            if call.record.worker_id is not None:
                cause.workers[call.record.worker_id] += 1
    return sorted(causes.values(), key=lambda cause: (-len(cause.questions), -cause.calls, cause.kind))


class Tokens(NamedTuple):
    """Prompt tokens of the calls whose server told both counts.

    Attributes:
        cached: that came out of a cache.
        new: that no earlier prompt had, as far as is known.
        lost: that had been computed before.
    """

    cached: int
    new: int
    lost: int

    @property
    def total(self) -> int:
        """Of all these prompts."""
        return self.cached + self.new + self.lost


def tokens(calls: Iterable[Sent], missed: Iterable[Miss]) -> Tokens | None:
    """Where the prompt tokens came from; `None` if no server said."""
    known = [
        (call.record.prompt_tokens, call.record.cached_tokens)
        for call in calls
        if not call.record.failed and call.record.prompt_tokens is not None and call.record.cached_tokens is not None
    ]
    if not known:
        return None
    prompt, cached = sum(p for p, _ in known), sum(c for _, c in known)
    lost = min(prompt - cached, round(sum(miss.tokens for miss in missed if miss.measured)))
    return Tokens(cached, prompt - cached - lost, lost)


class Turn(NamedTuple):
    """The calls that are the n-th of their chain.

    Attributes:
        number: from 1.
        prompt: tokens of their prompts.
        cached: those of them that were cached.
        calls: how many there are.
    """

    number: int
    prompt: int
    cached: int
    calls: int


def by_turn(calls: Iterable[Sent], most: int = 20) -> list[Turn]:
    """Reuse by a call's place in its chain; the last one holds all later calls, too."""
    places: Counter[str] = Counter()
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for call in sorted(calls, key=lambda one: one.record.started_at):
        places[call.chain] += 1
        record = call.record
        if record.failed or record.prompt_tokens is None or record.cached_tokens is None:
            continue
        of_turn = sums[min(places[call.chain], most)]
        for n, value in enumerate((record.prompt_tokens, record.cached_tokens, 1)):
            of_turn[n] += value
    return [Turn(number, *sums[number]) for number in sorted(sums)]


def ttfts(calls: Iterable[Sent]) -> list[float]:
    """Times to first token, ms, of answered calls."""
    return [ms for call in calls if not call.record.failed and (ms := ttft_ms(call.record)) is not None]


def call_times(calls: Iterable[Sent]) -> list[float]:
    """Times of answered calls as their callers saw them, ms."""
    return [ms for call in calls if not call.record.failed and (ms := call.record.client_total_ms) is not None]


def question_times(questions: Iterable[Asked]) -> list[float]:
    """Times of answered questions, s."""
    return [seconds for one in questions if one.failure is None and (seconds := one.seconds) is not None]


@dataclass(slots=True, kw_only=True)
class Worker:
    """A worker of the cluster.

    Attributes:
        id: Dynamo's.
        number: for the page, from 1: in the order of the ids.
        calls: that it answered.
        load: for each equal part of the run's time the mean number of its calls under way.
    """

    id: int
    number: int
    calls: int = 0
    load: list[float] = field(default_factory=list)


def workers(calls: Sequence[Sent], parts: int = 160) -> list[Worker]:
    """The workers that answered, and how busy each was in the course of the run."""
    ids = sorted({call.record.worker_id for call in calls if call.record.worker_id is not None})
    found = {one: Worker(id=one, number=n, load=[0.0] * parts) for n, one in enumerate(ids, start=1)}
    served = [call for call in calls if call.record.worker_id is not None and not call.record.failed]
    timed = [call for call in served if call.record.started_at]
    begin = min((call.record.started_at for call in timed), default=0.0)
    width = max((max((call.ended_at for call in timed), default=0.0) - begin) / parts, 1e-6)
    for call in served:
        worker = found[call.record.worker_id or 0]
        worker.calls += 1
        if not call.record.started_at:
            continue
        first, last = (call.record.started_at - begin) / width, (call.ended_at - begin) / width
        for n in range(int(first), min(int(last), parts - 1) + 1):
            worker.load[n] += max(0.0, min(last, n + 1) - max(first, n))
    return list(found.values())


def moves(calls: Iterable[Sent]) -> tuple[int, int]:
    """How many calls went to another worker than the call of their chain before, and how many might have."""
    last: dict[str, int] = {}
    moved = might = 0
    for call in sorted(calls, key=lambda one: one.record.started_at):
        worker = call.record.worker_id
        if worker is None:
            continue
        if call.chain in last:
            might += 1
            moved += last[call.chain] != worker
        last[call.chain] = worker
    return moved, might


def quantile(values: Sequence[float], share: float) -> float:
    """Of at least one value, between its two neighbours (numpy's default)."""
    return quantile_of(sorted(values), share)
