"""From a recording to what is to be played: questions, when they come, and which calls wait for which. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from nat_dynamo_plugin.recording.rows import RecordedCall


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call of a question.

    Attributes:
        number: of the recorded call, from 0.
        after: places, within the question, of the calls that had ended before this one began.
        gap_s: seconds from the last of these (without any: from the question's beginning) until it begins.
    """

    number: int
    after: tuple[int, ...]
    gap_s: float


@dataclass(frozen=True, slots=True)
class PlannedQuestion:
    """One question.

    Attributes:
        name: its id in the recording.
        at_s: when it comes, in seconds from the beginning of all.
        calls: in the order in which they began.
    """

    name: str
    at_s: float
    calls: tuple[PlannedCall, ...]


def plan(rows: Sequence[RecordedCall], *, rate: float | None = None, seed: int = 0) -> list[PlannedQuestion]:
    """The questions of a recording, as they came, or at another rate.

    Args:
        rows: the recorded calls.
        rate: questions a second, arriving at random (Poisson); `None` for the times of the recording.
        seed: of the arrivals.
    """
    numbered = sorted(enumerate(rows), key=lambda pair: (pair[1].question, pair[1].started_s))
    questions = [(name, list(group)) for name, group in groupby(numbered, key=lambda pair: pair[1].question)]
    questions.sort(key=lambda pair: pair[1][0][1].started_s)
    first_s = questions[0][1][0][1].started_s
    arrivals = random.Random(seed)
    planned, at_s = [], 0.0
    for name, group in questions:
        came_s = group[0][1].started_s - first_s
        planned.append(PlannedQuestion(name, came_s if rate is None else at_s, _calls(group)))
        at_s += 0.0 if rate is None else arrivals.expovariate(rate)
    return planned


def _calls(group: Sequence[tuple[int, RecordedCall]]) -> tuple[PlannedCall, ...]:
    began_s = group[0][1].started_s
    calls = []
    for number, row in group:
        after = tuple(k for k, (_, other) in enumerate(group) if other is not row and other.ended_s <= row.started_s)
        ready_s = max((group[k][1].ended_s for k in after), default=began_s)
        calls.append(PlannedCall(number, after, max(0.0, row.started_s - ready_s)))
    return tuple(calls)
