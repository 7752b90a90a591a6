"""The family: workloads drawn at random from stated ranges, a third of them set aside before anything was tuned.

A workload is one or two kinds of questions in one stream. Ranges, uniform unless said otherwise ("log": uniform in the
logarithm); times are those of an engine at `SPEEDUP`:

| | from | to |
|---|---|---|
| first prompt | 300 | 8,000 tokens, log |
| share of it that all of a kind have in common | 0 | .95 |
| growth of the prompt a call | 0 or 10 | 2,000 tokens, log |
| calls a question | 1 | 50; fixed, uniform, geometric, or most short and few long |
| output a call | 8 | 1,000 tokens, log; each call exponential around the kind's mean |
| time in tools | 0, or .01 | 15 s (60 s of real time), log; exponential |
| arrivals | | Poisson, bursts, or all at once |
| load: work that comes a second of what the cluster can do with every prompt cached | .3 | 2 |
| workers | 1 | 8 |
| KV caches: the working set of all questions, in caches | .5 | 4, log |

Where prompts are computed again decides little in most of these, as decoding or tools take the time. Those of even
numbers are therefore drawn where it can: first prompts from 1,000 tokens, 3 to 50 calls, outputs of 8 to 100 tokens,
tools up to 1 s, load 1 to 2.5, and a working set of 1.5 to 4 caches.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from workloads.questions import Call, Cluster, Question, Workload

SPEEDUP = 4.0
"""Factor on the speed of the simulated engines."""
_MOST_WORK_TOKENS = 2_500_000
"""Prompt tokens of a workload at most, computed or not: it bounds how long a run takes."""
_MOST_OUTPUT = 90_000
_LEAST_QUESTIONS = 40
"""Kinds of which so few would be all the work that a run has time for are drawn again."""
_PREFILL_MS, _DECODE_MS, _BATCH = 0.024, 25.0, 16


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    first: int
    shared: float
    growth: int
    calls: str
    most_calls: int
    output: int
    gap_s: float


def set_aside(seed: int) -> bool:
    """Whether a workload is looked at only once, in the end: a third of all, by a hash of the seed."""
    return hashlib.sha256(f"workload-{seed}".encode()).digest()[0] % 3 == 0


def crowded(seed: int) -> bool:
    """Whether a workload is drawn where prompts computed again take much of the time."""
    return seed % 2 == 0


def seeds(*, aside: bool) -> Iterator[int]:
    """The numbers of workloads that are set aside, or of the others, without end."""
    return (seed for seed in _naturals() if set_aside(seed) == aside)


def draw(seed: int, repetition: int = 0) -> Workload:
    """Workload number `seed`; repetitions differ in who comes when and how long it takes, not in what it is like."""
    source = random.Random(f"family-{seed}")
    kinds, arrivals, load = _shape(source, crowded(seed))
    workers = source.choice((1, 2, 2, 3, 4, 8))
    pressure = _log(source, 1.5 if crowded(seed) else 0.5, 4.0)
    questions = list(_questions(random.Random(f"family-{seed}-{repetition}"), kinds))
    work = sum(_work_s(question) for question in questions) / workers / SPEEDUP
    span = work / load
    at = _arrivals(random.Random(f"arrivals-{seed}-{repetition}"), arrivals, len(questions), span)
    questions = [replace(question, arrival_s=when) for question, when in zip(questions, at, strict=True)]
    largest = max(question.calls[-1].prompt_tokens + question.calls[-1].output_tokens for question in questions)
    unit = Workload(f"family {seed}", tuple(questions), Cluster(1, 1))
    # Every worker must be able to take the largest prompt, with some room beside it.
    blocks = max(math.ceil(1.5 * largest / 16), round(unit.working_set() / pressure / workers), 128)
    return replace(unit, cluster=Cluster(workers, blocks))


def describe(seed: int) -> str:
    """What a workload is like, in a line."""
    source = random.Random(f"family-{seed}")
    kinds, arrivals, load = _shape(source, crowded(seed))
    each = " + ".join(
        f"{k.first} tokens ({k.shared:.0%} shared) +{k.growth} a call, {k.calls} to {k.most_calls} calls, "
        f"{k.output} out, tools {k.gap_s:.2f} s"
        for k in kinds
    )
    return f"{each}; {arrivals}, load {load:.1f}"


def _shape(source: random.Random, crowded: bool) -> tuple[list[_Kind], str, float]:
    while True:
        kinds = [_kind(source, f"k{n}", crowded) for n in range(source.choice((1, 1, 2)))]
        if sum(1 for _ in _questions(random.Random(0), kinds)) >= _LEAST_QUESTIONS:
            break
    arrivals = source.choice(("poisson", "poisson", "bursts", "at once"))
    return kinds, arrivals, source.uniform(1.0, 2.5) if crowded else source.uniform(0.3, 2.0)


def _kind(source: random.Random, name: str, crowded: bool) -> _Kind:
    return _Kind(
        name,
        first=round(_log(source, 1000 if crowded else 300, 8000)),
        shared=source.uniform(0.0, 0.95),
        growth=0 if source.random() < 0.15 else round(_log(source, 10, 2000)),
        calls=source.choice(("fixed", "uniform", "geometric", "short and long")),
        most_calls=round(_log(source, 3 if crowded else 1, 50)),
        output=round(_log(source, 8, 100 if crowded else 1000)),
        gap_s=0.0 if source.random() < 0.2 else _log(source, 0.01, 1.0 if crowded else 15.0),
    )


def _questions(source: random.Random, kinds: list[_Kind]) -> Iterator[Question]:
    tokens = output = 0
    for _ in range(source.randint(50, 120)):
        kind = source.choice(kinds)
        calls, prompt = [], kind.first
        for _ in range(_calls(source, kind)):
            answer = max(1, min(2000, round(source.expovariate(1 / kind.output))))
            gap = source.expovariate(1 / kind.gap_s) if kind.gap_s else 0.0
            calls.append(Call(prompt, answer, gap))
            prompt = min(30_000, prompt + round(kind.growth * source.uniform(0.5, 1.5)))
        tokens += sum(call.prompt_tokens for call in calls)
        output += sum(call.output_tokens for call in calls)
        if tokens > _MOST_WORK_TOKENS or output > _MOST_OUTPUT:
            return
        yield Question(0.0, kind.name, ((kind.name, int(kind.first * kind.shared)),), tuple(calls))


def _calls(source: random.Random, kind: _Kind) -> int:
    most = kind.most_calls
    match kind.calls:
        case "fixed":
            return most
        case "uniform":
            return source.randint(1, most)
        case "geometric":
            return min(50, 1 + int(source.expovariate(2 / most)))
        case _:
            return most if source.random() < 0.25 else min(2, most)


def _work_s(question: Question) -> float:
    """Worker time that a question takes when every prompt it has sent is still cached, roughly."""
    computed = question.calls[-1].prompt_tokens - question.head_tokens
    output = sum(call.output_tokens for call in question.calls)
    return (computed * _PREFILL_MS + output * _DECODE_MS / _BATCH + 10.0 * len(question.calls)) / 1000.0


def _arrivals(source: random.Random, how: str, count: int, span: float) -> list[float]:
    if how == "at once":
        return [0.01 * n for n in range(count)]
    if how == "bursts":
        starts = [source.uniform(0, span) for _ in range(4)]
        return sorted(source.choice(starts) + source.uniform(0, 0.05 * span) for _ in range(count))
    return sorted(source.uniform(0, span) for _ in range(count))


def _log(source: random.Random, low: float, high: float) -> float:
    return math.exp(source.uniform(math.log(low), math.log(high)))


def _naturals() -> Iterator[int]:
    seed = 0
    while True:
        seed += 1
        yield seed
