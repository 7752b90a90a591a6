"""What a client learns of the work of its questions: calls a question, output tokens a call, time between calls.

Kept for each workflow and function path, and below it for each kind of question that the caller names
(`DynamoHints.scope(kind=...)`). Bounded in keys and samples, and decaying: old questions count less and less. Read it
with `snapshot`, keep it over restarts with `save` and `load`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.learning import store
from nat_dynamo_plugin.learning.means import Group
from nat_dynamo_plugin.learning.store import Key
from nat_dynamo_plugin.locks import Lock

MAX_KEYS = 1024
"""Paths and kinds kept at once; the least recently used is forgotten first."""
MAX_OPEN = 16_384
"""Chains under way that are counted at once; the least recently used is forgotten first."""
MIN_QUESTIONS = 5
"""Questions of a path that must have ended before anything is expected of the next one."""
PRIOR_QUESTIONS = 2.0
"""Weight of the coarser kind's expectation, in questions; a kind seen more often is believed more."""


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


@dataclass(slots=True)
class Chain:
    """A chain of calls under way.

    Attributes:
        keys: what it is like, coarse first.
        prefix_id: its question.
        calls: calls made.
        last_end: when the last one ended, s.
    """

    keys: tuple[Key, ...]
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
        self._groups: OrderedDict[Key, Group] = OrderedDict()
        self._open: OrderedDict[str, Chain] = OrderedDict()
        self._by_prefix: dict[str, set[str]] = {}
        self._max_keys = max_keys
        self._max_open = max_open
        self._lock = Lock()

    def count_call(self, *, session_id: str, prefix_id: str, path: tuple[str, ...], kind: str | None = None) -> Chain:
        """Count a call of a chain, which begins anew once its question has ended; the chain is for `end_call`.

        Args:
            session_id: the chain's id.
            prefix_id: the question it belongs to.
            path: NAT's function path of the caller.
            kind: the kind of question, if the caller names one.
        """
        with self._lock:
            chain = self._open.get(session_id)
            if chain is None:
                chain = self._open[session_id] = Chain(_keys(path, kind), prefix_id)
                self._by_prefix.setdefault(prefix_id, set()).add(session_id)
                if len(self._open) > self._max_open:
                    self._forget(next(iter(self._open)))
            else:
                self._open.move_to_end(session_id)
            chain.calls += 1
            return chain

    def end_call(self, chain: Chain, *, output_tokens: int | None, started_at: float, ended_at: float) -> None:
        """Note what a call took; may be called from a destructor, and after the question's end.

        Args:
            chain: whose call it was.
            output_tokens: tokens of its answer, if the server said.
            started_at: when it was made, s.
            ended_at: when its answer was complete, s, by the same clock.
        """

        def note() -> None:
            gap = None if chain.last_end is None else (started_at - chain.last_end) * 1000.0
            chain.last_end = ended_at
            for key in chain.keys:
                group = self._group(key)
                if output_tokens is not None:
                    group.tokens.add(output_tokens)
                # Calls that run side by side do not follow each other.
                if gap is not None and gap >= 0:
                    group.gaps.add(gap)

        self._lock.soon(note)

    def end_question(self, prefix_id: str) -> None:
        """Note that a question is done: its chains have made all their calls. May be called from a destructor."""

        def note() -> None:
            for session_id in self._by_prefix.pop(prefix_id, ()):
                chain = self._open.pop(session_id, None)
                if chain is not None:
                    for key in chain.keys:
                        self._group(key).calls.add(chain.calls)

        self._lock.soon(note)

    def expect(self, path: tuple[str, ...], kind: str | None = None, calls_made: int = 0) -> Expectation | None:
        """What is expected of a chain after its next call, `calls_made` calls being made before that."""
        with self._lock:
            return self._expect(_keys(path, kind), calls_made)

    def _expect(self, keys: tuple[Key, ...], made: int) -> Expectation | None:
        top = self._groups.get(keys[0])
        if top is None or top.calls.questions < MIN_QUESTIONS:
            return None
        # Longer than all seen: as much again is the least presumptuous guess (Lindy), and little weighs against data.
        remaining = made + 1.0
        tokens = gap = None
        for key in keys:
            group = self._groups.get(key)
            if group is None:
                break
            weight, excess = group.calls.beyond(made)
            # `excess` counts the call in question too, so what remains after it is one less.
            prior = PRIOR_QUESTIONS if key is not keys[0] else 0.5
            remaining = (excess - weight + prior * remaining) / (weight + prior)
            tokens = group.tokens.mean if group.tokens.weight >= MIN_QUESTIONS else tokens
            gap = group.gaps.mean if group.gaps.weight >= MIN_QUESTIONS else gap
        return Expectation(max(0.0, remaining), tokens, gap, top.calls.questions)

    def _group(self, key: Key) -> Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group()
            if len(self._groups) > self._max_keys:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(key)
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
            return [_row(key, self._groups[key]) for key in sorted(self._groups)]

    def save(self, file: Path) -> None:
        """Write what is known; see `store.write`.

        Raises:
            OSError: it can not be written.
        """
        with self._lock:
            groups = [(key, group.to_dict()) for key, group in self._groups.items()]
        store.write(file, groups)

    def load(self, file: Path) -> None:
        """Know what a file says, in place of all that was known; chains under way stay.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else; nothing is changed then.
        """
        groups = store.read(file, self._max_keys)
        with self._lock:
            self._groups = groups


def _row(key: Key, group: Group) -> dict[str, Any]:
    path, kind = key
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


def _keys(path: tuple[str, ...], kind: str | None) -> tuple[Key, ...]:
    where = "/".join(path)
    parts = kind.split(",") if kind else []
    return tuple((where, ",".join(parts[:count])) for count in range(len(parts) + 1))
