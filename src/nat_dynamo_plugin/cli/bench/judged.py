"""What the blocks say: whether it pays, by how much, and from which load on. Pure.

A gain is the mean of the rounds' log ratios (of shares: differences) with an interval for further rounds and further
questions (see `sweep.interval`); with several levels of load, each is wider, so that all of them hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nat_dynamo_plugin.cli.bench.blocks import ARMS, Block, Level, Question
from nat_dynamo_plugin.evaluators.metric import Sample
from nat_dynamo_plugin.sweep.interval import Interval, confidence_of_each
from nat_dynamo_plugin.sweep.limits import MIN_ROUNDS
from nat_dynamo_plugin.sweep.verdict import Comparison, Objective, Outcome, QuestionSamples, compare

CONFIDENCE = 0.95
"""That all intervals of the question's time hold together."""
SMALLEST = 0.03
"""A gain that is not worth having: below it the verdict is that there is none."""
DECIDES = "question"

OBJECTIVES = {
    "question": Objective("question", "bench", "minimize", unit="s"),
    "question p95": Objective("question p95", "bench", "minimize", statistic="p95", unit="s"),
    "TTFT": Objective("TTFT", "bench", "minimize", unit="ms"),
    "TTFT p95": Objective("TTFT p95", "bench", "minimize", statistic="p95", unit="ms"),
    "reuse": Objective("reuse", "bench", "maximize", unit="share"),
}
"""What is compared. `question`, the time of a question with its pauses, decides."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric at one load.

    Attributes:
        plain: mean over rounds, of OpenAI's client.
        plugin: mean over rounds, of the plugin's.
        gain: relative, positive where the plugin is better; of shares the difference.
        outcome: what the interval says.
    """

    plain: float
    plugin: float
    gain: Interval
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Judged:
    """One level of load.

    Attributes:
        concurrency: questions under way at once.
        rounds: measured.
        figures: by metric; without those that the server says nothing of.
        failed: failed calls of each arm.
        problem: the first error of a call.
        why_not: why there is no verdict; `None` if there is one.
    """

    concurrency: int
    rounds: int
    figures: dict[str, Figure]
    failed: dict[str, int]
    problem: str | None = None
    why_not: str | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What is decided; `None` without a verdict."""
        return self.figures[DECIDES].outcome if DECIDES in self.figures else None


def judged(level: Level, levels: int) -> Judged:
    """What a level's rounds say.

    Args:
        level: its rounds.
        levels: how many levels' verdicts are to hold together.
    """
    failed = {arm: sum(round_[arm].failed for round_ in level.rounds) for arm in ARMS}
    problem = next((b.problem for round_ in level.rounds for b in round_.values() if b.problem), None)
    figures: dict[str, Figure] = {}
    why_not: str | None = None
    for name, objective in OBJECTIVES.items():
        sides = [[[_samples(name, round_[arm])] for round_ in level.rounds] for arm in ARMS]
        if not any(one for side in sides for (samples,) in side for one in samples.values()) and name != DECIDES:
            continue
        confidence = confidence_of_each(CONFIDENCE, levels) if name == DECIDES else CONFIDENCE
        try:
            found = compare([objective], sides[1], sides[0], confidence=confidence)
        except ValueError as error:
            why_not = why_not or str(error)
            continue
        figures[name] = _figure(found)
    return Judged(level.concurrency, len(level.rounds), figures, failed, problem, why_not)


def _figure(found: Comparison) -> Figure:
    return Figure(found.baseline[0].estimate, found.values[0].estimate, found.overall, found.outcome(SMALLEST))


def _samples(name: str, block: Block) -> QuestionSamples:
    return {question: _of(name, answered) for question, answered in block.answered.items()}


def _of(name: str, question: Question) -> list[Sample]:
    if name.startswith("question"):
        return [Sample(question.took_s)]
    if name.startswith("TTFT"):
        return [Sample(1000 * call.ttft_s) for call in question.calls if call.ttft_s is not None]
    return [
        Sample(call.cached_tokens, call.prompt_tokens)
        for call in question.calls
        if call.cached_tokens is not None and call.prompt_tokens
    ]


def verdict(found: Sequence[Judged]) -> str:
    """Whether it pays, by how much and from which load on, in a sentence or two."""
    known = [one for one in found if one.outcome is not None]
    if not known:
        why = next((one.why_not for one in found if one.why_not), "nothing was measured")
        return f"No verdict: {why}."
    paying = _from_which_load(known)
    worse = [one for one in known if one.outcome == "worse"]
    told = []
    if paying:
        first, last = paying[0], paying[-1]
        loads = (
            f"from {first.concurrency} questions at once on" if len(known) > 1 else f"at {first.concurrency} at once"
        )
        told.append(f"It pays {loads}: at {last.concurrency}, a question takes {_less(last)}.")
    elif better := [one for one in known if one.outcome == "better"]:
        told.append(f"It pays at {_loads(better)} at once ({_less(better[-1])}), and not at all loads above that.")
    if worse:
        told.append(f"It costs at {_loads(worse)} at once: a question takes {_less(worse[-1])}.")
    if not told:
        highest = max(one.figures[DECIDES].gain.high for one in known)
        same = all(one.outcome == "no better" for one in known)
        told.append(
            f"It does not pay at this load: no gain, or one below {SMALLEST:.0%}."
            if same
            else f"No difference was shown; a gain of up to {highest:.0%} may be hidden: try more rounds, or more load."
        )
    return " ".join(told)


def _from_which_load(known: Sequence[Judged]) -> list[Judged]:
    """The levels from the first one on from which every level is better."""
    paying: list[Judged] = []
    for one in sorted(known, key=lambda judged: -judged.concurrency):
        if one.outcome != "better":
            break
        paying.insert(0, one)
    return paying


def _loads(found: Sequence[Judged]) -> str:
    return ", ".join(str(one.concurrency) for one in found)


def _less(one: Judged) -> str:
    gain = one.figures[DECIDES].gain
    if gain.estimate >= 0:
        return f"{gain.estimate:.1%} less time ({gain.low:.1%} to {gain.high:.1%})"
    return f"{-gain.estimate:.1%} more time ({-gain.high:.1%} to {-gain.low:.1%})"


def enough_rounds(rounds: int) -> bool:
    """Whether so many rounds make a verdict at all."""
    return rounds >= MIN_ROUNDS
