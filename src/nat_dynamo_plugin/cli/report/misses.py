"""Which prompt tokens were computed although they had been computed before, why, and what that cost. Pure.

A call might reuse the prompt of an earlier call of its chain (its session), and a chain's first call what questions of
its kind begin with: the system message and the tools. What was not reused of that is lost. Where the prompts are known
(a recording), a loss is put down to the first difference of the two; what even that does not explain, and all without a
recording, to how the call was served. Tokens are the server's count; where in a prompt a difference stands is known in
characters, and taken as the same share of its tokens. A loss below `tolerance` is none: caches hold whole blocks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nat_dynamo_plugin.cli.report.causes import Cause, Served, headline
from nat_dynamo_plugin.cli.report.prompts import Change, Difference, Part, Prompt, difference, shared
from nat_dynamo_plugin.telemetry.record import CallRecord

_LOOK_BACK = 12
"""With how many earlier prompts one is compared at most."""
_LEAST_CALLS = 20
_MOST_PAIRS = 400


def tolerance(expected: float) -> float:
    """Tokens that may miss of so many without a loss: the rest of a block (16 to 64 tokens, as a rule), and 2 %."""
    return 64 + 0.02 * expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A call with what is known of its prompt.

    Attributes:
        question: its id.
        number: of the call in its question, from 1, in the order in which they began.
        record: of it.
        prompt: as it was recorded.
    """

    question: str
    number: int
    record: CallRecord
    prompt: Prompt | None = None

    @property
    def chain(self) -> str:
        """The chain of calls that it is part of."""
        return self.record.session_id or self.record.prefix_id or self.question

    @property
    def ended_at(self) -> float:
        """Seconds since the epoch."""
        return self.record.started_at + (self.record.client_total_ms or 0.0) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """Tokens lost by one call for one cause.

    Attributes:
        cause: of the loss.
        call: that computed them again.
        before: the call whose work might have been reused.
        tokens: lost.
        found: where the two prompts differ, if they do.
        measured: whether the server said what it had cached; else it is an estimate of what the difference costs.
        between: whether the two are calls of two chains, and not of one.
    """

    cause: Cause
    call: Sent
    before: Sent
    tokens: float
    found: Difference | None = None
    measured: bool = True
    between: bool = False


@dataclass(slots=True, kw_only=True)
class Finding:
    """All losses for one cause.

    Attributes:
        cause: of the losses.
        name: the cause in words.
        misses: at least one, the largest first.
    """

    cause: Cause
    name: str
    misses: list[Miss] = field(default_factory=list)

    @property
    def tokens(self) -> float:
        """Lost in all."""
        return sum(miss.tokens for miss in self.misses)

    @property
    def questions(self) -> int:
        """How many had such a loss."""
        return len({miss.call.question for miss in self.misses})

    @property
    def between(self) -> int:
        """How many of the losses are first calls', which might have begun as other questions."""
        return sum(miss.between for miss in self.misses)


class _Kind:
    """The first calls of chains of one kind, so far."""

    def __init__(self) -> None:
        self.calls: list[Sent] = []
        self.alike: dict[tuple[Part, ...], list[Sent]] = defaultdict(list)

    def add(self, call: Sent, prompt: Prompt) -> None:
        self.calls.append(call)
        self.alike[prompt.parts[: prompt.lead]].append(call)


def misses(calls: Sequence[Sent]) -> list[Miss]:
    """All losses of a run, in the order of the calls."""
    answered = sorted((call for call in calls if not call.record.failed), key=lambda call: call.record.started_at)
    chains: dict[str, list[Sent]] = defaultdict(list)
    kinds: dict[tuple[object, ...], _Kind] = defaultdict(_Kind)
    found: list[Miss] = []
    for call in answered:
        earlier = chains[call.chain]
        if earlier:
            found += _in_chain(_nearest(earlier, call), call)
        elif call.prompt is not None and call.prompt.lead:
            kind = kinds[_kind(call, call.prompt)]
            found += _between(kind, call, call.prompt)
            kind.add(call, call.prompt)
        earlier.append(call)
    return found


def findings(found: Sequence[Miss]) -> list[Finding]:
    """Losses by cause, the dearest first."""
    by_name: dict[tuple[Cause, str], Finding] = {}
    for miss in found:
        name = headline(miss.cause, miss.found)
        finding = by_name.setdefault((miss.cause, name), Finding(cause=miss.cause, name=name))
        finding.misses.append(miss)
    for finding in by_name.values():
        finding.misses.sort(key=lambda miss: -miss.tokens)
    return sorted(by_name.values(), key=lambda finding: -finding.tokens)


def ms_per_token(calls: Sequence[Sent]) -> float | None:
    """What a prompt token costs that is not cached, in ms to the first token; `None` if the run does not show it.

    The median of the slopes between pairs of calls (Theil and Sen), which a few slow calls do not move. Times are the
    server's; where it tells none, the client's without its waits.
    """
    points = [
        (new, ttft)
        for call in calls
        if (new := _new_tokens(call.record)) is not None and (ttft := ttft_ms(call.record)) is not None
    ]
    if len(points) < _LEAST_CALLS:
        return None
    data = np.array(points, dtype=np.float64)
    data = data[:: -(-len(data) // _MOST_PAIRS)]
    one, other = np.triu_indices(len(data), k=1)
    apart = data[other, 0] - data[one, 0]
    far = np.abs(apart) >= 32
    if far.sum() < _LEAST_CALLS:
        return None
    slopes = (data[other, 1] - data[one, 1])[far] / apart[far]
    # Kendall's tau of the pairs, and its spread were the times independent of the tokens.
    n = len(data)
    tau = float(np.sign(slopes).sum()) / (n * (n - 1) / 2)
    by_chance = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
    return float(np.median(slopes)) if tau > 3 * by_chance else None


def ttft_ms(record: CallRecord) -> float | None:
    """Time to first token in ms: the server's, or the client's without what it waited before sending."""
    if record.server_ttft_ms is not None:
        return record.server_ttft_ms
    if record.client_ttft_ms is None:
        return None
    return max(0.0, record.client_ttft_ms - waits_ms(record))


def waits_ms(record: CallRecord) -> float:
    """What a call waited in the client: gate, slot, outage, and between attempts."""
    return (record.gate_wait_ms or 0.0) + record.retry_wait_ms + record.slot_wait_ms + record.outage_wait_ms


def _new_tokens(record: CallRecord) -> int | None:
    if record.failed or record.prompt_tokens is None or record.cached_tokens is None:
        return None
    return record.prompt_tokens - record.cached_tokens


def _kind(call: Sent, prompt: Prompt) -> tuple[object, ...]:
    names = tuple(sorted(text.split()[0] for text in prompt.tools))
    return call.record.request_model, call.record.function_path, names


def _nearest(earlier: Sequence[Sent], call: Sent) -> Sent:
    """The earlier call of the chain whose prompt this one continues: most in common, the latest of those."""
    prompt = call.prompt
    if prompt is None:
        return earlier[-1]
    known = [(one, one.prompt) for one in earlier[-_LOOK_BACK:] if one.prompt is not None]
    if not known:
        return earlier[-1]
    return max(enumerate(known), key=lambda one: (shared(one[1][1], prompt), one[0]))[1][0]


def _in_chain(before: Sent, call: Sent) -> Iterator[Miss]:
    expected = before.record.prompt_tokens
    if expected is None:
        return
    if before.prompt is None or call.prompt is None:
        yield from _without_prompts(before, call, expected)
        return
    found = difference(before.prompt, call.prompt)
    if found is None:
        expected = min(expected, call.record.prompt_tokens or expected)
        yield from _of_serving(before, call, expected)
    elif found.change is not Change.OTHER_PROMPT:
        size = before.prompt.size
        yield from _of_difference(before, call, expected, found, size)
        yield from _of_serving(before, call, expected * found.kept / max(1, size))


def _between(kind: _Kind, call: Sent, prompt: Prompt) -> Iterator[Miss]:
    if not kind.calls or call.record.prompt_tokens is None:
        return
    expected = call.record.prompt_tokens * prompt.lead_size / max(1, prompt.size)
    alike = kind.alike.get(prompt.parts[: prompt.lead])
    there = [one for one in alike or kind.calls if one.record.worker_id == call.record.worker_id]
    if alike:
        yield from _of_serving((there or alike)[-1], call, expected, between=True, cold=not there)
        return
    known = [(n, one, one.prompt) for n, one in enumerate(kind.calls[-_LOOK_BACK:]) if one.prompt is not None]
    _, before, was = max(known, key=lambda one: (shared(one[2], prompt, prompt.lead), one[0]))
    found = difference(was, prompt, lead_only=True)
    if found is None or found.change is Change.OTHER_PROMPT:
        return
    yield from _of_difference(before, call, expected, found, was.lead_size, between=True)
    kept = expected * found.kept / max(1, was.lead_size)
    yield from _of_serving((there or [before])[-1], call, kept, between=True, cold=not there)


def _of_difference(
    before: Sent, call: Sent, expected: float, found: Difference, size: int, *, between: bool = False
) -> Iterator[Miss]:
    """What a changed prompt costs."""
    kept = expected * found.kept / max(1, size)
    cached = call.record.cached_tokens
    lost = expected - max(kept, cached or 0)
    if lost > tolerance(expected):
        yield Miss(
            cause=found.change, call=call, before=before, tokens=lost, found=found, measured=cached is not None,
            between=between,
        )  # fmt: skip


def _of_serving(
    before: Sent, call: Sent, expected: float, *, between: bool = False, cold: bool = False
) -> Iterator[Miss]:
    cached = call.record.cached_tokens
    if cached is None or expected - cached <= tolerance(expected):
        return
    now, then = call.record.worker_id, before.record.worker_id
    if cold and now is not None:
        cause = Served.COLD
    elif before.ended_at > call.record.started_at:
        cause = Served.OVERLAPPED
    elif now is not None and then is not None and now != then:
        cause = Served.MOVED
    elif now is None or then is None or call.prompt is None:
        cause = Served.UNKNOWN
    else:
        cause = Served.FORGOTTEN
    yield Miss(cause=cause, call=call, before=before, tokens=expected - cached, between=between)


def _without_prompts(before: Sent, call: Sent, expected: int) -> Iterator[Miss]:
    asked, cached = call.record.prompt_tokens, call.record.cached_tokens
    if asked is None or cached is None:
        return
    if asked >= expected:
        yield from _of_serving(before, call, expected)
    elif asked - cached > tolerance(asked):
        yield Miss(cause=Served.SHRANK, call=call, before=before, tokens=asked - cached)
