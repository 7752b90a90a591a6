"""What a client learns of the work of its questions: calls a question, output tokens a call, time between calls.

Kept for each workflow and function path, and below it for each kind of question that the caller names
(`DynamoHints.scope(kind=...)`). Bounded in keys and samples, and decaying: old questions count less and less. Read it
with `snapshot`, keep it over restarts with `save` and `load`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FORMAT = "nat-dynamo-learned"
VERSION = 1

MAX_KEYS = 1024
"""Paths and kinds kept at once; the least recently used is forgotten first."""
MAX_CALLS = 256
"""Longest question told apart, in calls; longer ones count as that long."""
MAX_OPEN = 16_384
"""Chains under way that are counted at once; the least recently used is forgotten first."""
DECAY = 0.998
"""What a question still counts when the next one ends: the last 500 or so make up most of the numbers."""
MIN_QUESTIONS = 5
"""Questions of a path that must have ended before anything is expected of the next one."""
PRIOR_QUESTIONS = 2.0
"""Weight of the coarser kind's expectation, in questions; a kind seen more often is believed more."""

_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of a chain from here on.

    Attributes:
        remaining_calls: calls after the one asked about, 0 or more.
        output_tokens: tokens of an answer, or `None` if no answer said how many.
        interarrival_ms: from an answer's end to the next call's start, or `None` if nothing followed anything yet.
        questions: questions of this path that the expectation rests on, decayed.
    """

    remaining_calls: float
    output_tokens: float | None
    interarrival_ms: float | None
    questions: float


class _Mean:
    """An exponentially decaying mean and spread."""

    __slots__ = ("squares", "total", "weight")

    def __init__(self, weight: float = 0.0, total: float = 0.0, squares: float = 0.0) -> None:
        self.weight, self.total, self.squares = weight, total, squares

    def add(self, value: float) -> None:
        self.weight = self.weight * DECAY + 1.0
        self.total = self.total * DECAY + value
        self.squares = self.squares * DECAY + value * value

    @property
    def mean(self) -> float | None:
        return self.total / self.weight if self.weight else None

    @property
    def deviation(self) -> float | None:
        if not self.weight:
            return None
        mean = self.total / self.weight
        return math.sqrt(max(0.0, self.squares / self.weight - mean * mean))


class _Calls:
    """A decaying distribution of calls a question."""

    __slots__ = ("_survivors", "weights")

    def __init__(self, weights: Mapping[int, float] | None = None) -> None:
        self.weights: dict[int, float] = dict(weights or {})
        self._survivors: list[tuple[float, float]] | None = None

    def add(self, calls: int) -> None:
        for length in self.weights:
            self.weights[length] *= DECAY
        length = min(calls, MAX_CALLS)
        self.weights[length] = self.weights.get(length, 0.0) + 1.0
        if self.weights and min(self.weights.values()) < 1e-3:
            self.weights = {length: weight for length, weight in self.weights.items() if weight >= 1e-3}
        self._survivors = None

    @property
    def questions(self) -> float:
        return sum(self.weights.values())

    def beyond(self, calls: int) -> tuple[float, float]:
        """Weight of the questions with more than `calls` calls, and the sum of their calls beyond that, so weighted."""
        table = self._survivors
        if table is None:
            table = self._survivors = self._table()
        return table[calls] if calls < len(table) else (0.0, 0.0)

    def _table(self) -> list[tuple[float, float]]:
        longest = max(self.weights, default=0)
        table = [(0.0, 0.0)] * (longest + 1)
        weight = excess = 0.0
        for calls in range(longest - 1, -1, -1):
            weight += self.weights.get(calls + 1, 0.0)
            excess += weight
            table[calls] = (weight, excess)
        return table


class _Group:
    """What is known of one path, or of one kind of question there."""

    __slots__ = ("calls", "gaps", "tokens")

    def __init__(self) -> None:
        self.calls = _Calls()
        self.tokens = _Mean()
        self.gaps = _Mean()

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"calls": {str(k): round(v, 4) for k, v in sorted(self.calls.weights.items())}}
        for name, mean in (("output_tokens", self.tokens), ("interarrival_ms", self.gaps)):
            data[name] = [round(mean.weight, 4), round(mean.total, 4), round(mean.squares, 4)]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> _Group:
        group = cls()
        weights = {int(calls): float(weight) for calls, weight in data["calls"].items()}
        if any(not 1 <= calls <= MAX_CALLS or not 0 <= weight < math.inf for calls, weight in weights.items()):
            raise ValueError("a number of calls or its weight is out of range")
        group.calls = _Calls(weights)
        group.tokens = _Mean(*map(_finite, data["output_tokens"]))
        group.gaps = _Mean(*map(_finite, data["interarrival_ms"]))
        return group


def _finite(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no finite number of 0 or more")
    return number


@dataclass(slots=True)
class _Open:
    """A chain under way."""

    groups: tuple[str, ...]
    prefix_id: str
    calls: int = 0
    last_end: float | None = None


class WorkLearner:
    """Learns from finished calls and questions; safe across threads.

    A question's distribution is what `expect` answers from: the mean residual number of calls of the questions seen,
    given the calls made so far. Kinds are nested by commas, coarse first: `turns=3,tools=A+B` is part of `turns=3`, and
    what few questions of a kind leave open is filled in from the coarser one (shrinkage with a weight of
    `PRIOR_QUESTIONS`).
    """

    def __init__(self, max_keys: int = MAX_KEYS, max_open: int = MAX_OPEN) -> None:
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._by_prefix: dict[str, set[str]] = {}
        self._max_keys = max_keys
        self._max_open = max_open
        self._lock = threading.Lock()

    def begin_call(
        self, *, session_id: str, prefix_id: str, path: tuple[str, ...], kind: str | None = None
    ) -> Expectation | None:
        """Note that a chain makes a call; what is expected after it, or `None` while too little is known.

        Args:
            session_id: the chain.
            prefix_id: the question it belongs to.
            path: NAT's function path of the caller.
            kind: the kind of question, if the caller names one.
        """
        with self._lock:
            chain = self._open.get(session_id)
            if chain is None:
                chain = self._open[session_id] = _Open(_group_names(path, kind), prefix_id)
                self._by_prefix.setdefault(prefix_id, set()).add(session_id)
                if len(self._open) > self._max_open:
                    self._forget(next(iter(self._open)))
            else:
                self._open.move_to_end(session_id)
            made = chain.calls
            chain.calls = made + 1
            return self._expect(chain.groups, made)

    def end_call(self, *, session_id: str, output_tokens: int | None, started_at: float, ended_at: float) -> None:
        """Note what a call took.

        Args:
            session_id: the chain that made it.
            output_tokens: tokens of its answer, if the server said.
            started_at: when it was made, s.
            ended_at: when its answer was complete, s, by the same clock.
        """
        with self._lock:
            chain = self._open.get(session_id)
            if chain is None:
                return
            gap = None if chain.last_end is None else (started_at - chain.last_end) * 1000.0
            chain.last_end = ended_at
            for name in chain.groups:
                group = self._group(name)
                if output_tokens is not None:
                    group.tokens.add(output_tokens)
                # Calls that run side by side do not follow each other.
                if gap is not None and gap >= 0:
                    group.gaps.add(gap)

    def end_question(self, prefix_id: str) -> None:
        """Note that a question is done: its chains have made all their calls."""
        with self._lock:
            for session_id in self._by_prefix.pop(prefix_id, ()):
                chain = self._open.pop(session_id, None)
                if chain is not None:
                    for name in chain.groups:
                        self._group(name).calls.add(chain.calls)

    def expect(self, path: tuple[str, ...], kind: str | None = None, calls_made: int = 0) -> Expectation | None:
        """What is expected of a chain after its next call, `calls_made` calls being made before that."""
        with self._lock:
            return self._expect(_group_names(path, kind), calls_made)

    def _expect(self, names: tuple[str, ...], made: int) -> Expectation | None:
        top = self._groups.get(names[0])
        if top is None or top.calls.questions < MIN_QUESTIONS:
            return None
        # Longer than all seen: as much again is the least presumptuous guess (Lindy), and little weighs against data.
        remaining = made + 1.0
        tokens = gap = None
        for name in names:
            group = self._groups.get(name)
            if group is None:
                break
            weight, excess = group.calls.beyond(made)
            # `excess` counts the call in question too, so what remains after it is one less.
            prior = PRIOR_QUESTIONS if name is not names[0] else 0.5
            remaining = (excess - weight + prior * remaining) / (weight + prior)
            tokens = group.tokens.mean if group.tokens.weight >= MIN_QUESTIONS else tokens
            gap = group.gaps.mean if group.gaps.weight >= MIN_QUESTIONS else gap
        return Expectation(max(0.0, remaining), tokens, gap, top.calls.questions)

    def _group(self, name: str) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
            if len(self._groups) > self._max_keys:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(name)
        return group

    def _forget(self, session_id: str) -> None:
        chain = self._open.pop(session_id)
        of_prefix = self._by_prefix.get(chain.prefix_id)
        if of_prefix is not None:
            of_prefix.discard(session_id)
            if not of_prefix:
                del self._by_prefix[chain.prefix_id]

    def snapshot(self) -> list[dict[str, Any]]:
        """What is known, one row a path and kind: questions, mean and spread of each number (calls, tokens, ms)."""
        with self._lock:
            return [self._row(name, group) for name, group in sorted(self._groups.items())]

    @staticmethod
    def _row(name: str, group: _Group) -> dict[str, Any]:
        path, _, kind = name.partition(_SEPARATOR)
        calls = group.calls
        weight, excess = calls.beyond(0)
        return {
            "path": path,
            "kind": kind or None,
            "questions": round(weight, 2),
            "calls_mean": excess / weight if weight else None,
            "calls": {str(k): round(v, 3) for k, v in sorted(calls.weights.items())},
            "output_tokens_mean": group.tokens.mean,
            "output_tokens_deviation": group.tokens.deviation,
            "interarrival_ms_mean": group.gaps.mean,
            "interarrival_ms_deviation": group.gaps.deviation,
        }

    def save(self, file: Path) -> None:
        """Write what is known as JSON. The file appears whole or not at all.

        Raises:
            OSError: it can not be written.
        """
        with self._lock:
            groups = [{"name": list(_split(name)), **group.to_dict()} for name, group in self._groups.items()]
        text = json.dumps({"format": FORMAT, "version": VERSION, "groups": groups}, separators=(",", ":"))
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def load(self, file: Path) -> None:
        """Know what a file says, in place of all that was known; chains under way stay.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not what `save` writes, or of a newer version; nothing is changed then.
        """
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            if data["version"] != VERSION:
                raise ValueError(f"version {data['version']!r}; this release reads version {VERSION}")
            rows = data["groups"][-self._max_keys :]
            groups = OrderedDict((_SEPARATOR.join(row["name"]), _Group.from_dict(row)) for row in rows)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(file)!r} holds no learned numbers: {error}") from error
        with self._lock:
            self._groups = groups


def _split(name: str) -> tuple[str, str]:
    path, _, kind = name.partition(_SEPARATOR)
    return path, kind


def _group_names(path: tuple[str, ...], kind: str | None) -> tuple[str, ...]:
    return tuple(_nested("/".join(path), kind))


def _nested(path: str, kind: str | None) -> Iterator[str]:
    yield path + _SEPARATOR
    if kind:
        parts = kind.split(",")
        for count in range(1, len(parts) + 1):
            yield path + _SEPARATOR + ",".join(parts[:count])
