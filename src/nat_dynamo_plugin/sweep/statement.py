"""The verdict of a sweep in words."""

from __future__ import annotations

from nat_dynamo_plugin.sweep.interval import Interval
from nat_dynamo_plugin.sweep.limits import MIN_TO_SPLIT
from nat_dynamo_plugin.sweep.results import Finals, SweepResult
from nat_dynamo_plugin.sweep.verdict import Comparison

_KEPT = "optimized_config.yml keeps the current values."


def verdict_text(result: SweepResult) -> str:
    """The verdict in a few sentences."""
    finals = result.finals
    if not any(row.index == 0 and row.state == "done" for row in result.rows):
        return "Nothing can be said: the current config was not measured."
    if not finals.indexes:
        return f"Nothing to compare: no other configuration was measured. {_KEPT}"
    if finals.look is None or not finals.comparisons:
        parts = [_not_proven(result)]
    elif finals.winner is not None:
        parts = [_better(result, finals.winner)]
    elif "inconclusive" in finals.outcomes.values():
        parts = [_inconclusive(result), _KEPT]
    else:
        parts = [_no_better(result), _KEPT]
    return " ".join([*parts, *_unjudged(finals), *_asked(finals)])


def gain_text(result: SweepResult, interval: Interval, value: float) -> str:
    """An end of a weighted gain's interval with its unit: that of the objective, if there is one only."""
    if len(result.objectives) == 1:
        return result.objectives[0].shown_gain(value, difference=interval.is_difference)
    return f"{value:+.1%}"


def _better(result: SweepResult, winner: int) -> str:
    c = result.finals.comparisons[winner]
    gain = gain_text(result, c.overall, c.overall.estimate)
    return (
        f"Trial {winner} ({result.said(result.rows[winner].config)}) beats the current config: by {gain} as measured, "
        f"and by {gain_text(result, c.overall, c.overall.low)} at least {_certainty(result, c)}. Of what wins, the "
        f"measured gain is more often too high than too low: expect less than {gain}. {_figures(result, c)}."
    )


def _no_better(result: SweepResult) -> str:
    finals = result.finals
    # What is said of the best holds for all: their intervals hold together.
    best, c = max(finals.comparisons.items(), key=lambda pair: pair[1].overall.high)
    if all(outcome == "worse" for outcome in finals.outcomes.values()):
        said = "all finalists are worse than the current config"
    else:
        said = f"no finalist is better by more than {gain_text(result, c.overall, max(c.overall.high, 0.0))}"
    return (
        f"Nothing beat the current config: {said}; trial {best} differs by "
        f"{gain_text(result, c.overall, c.overall.estimate)} {_certainty(result, c)}."
    )


def _inconclusive(result: SweepResult) -> str:
    """What was seen, what could have been shown, and what would show it."""
    finals = result.finals
    open_ = {i: c for i, c in finals.comparisons.items() if finals.outcomes[i] == "inconclusive"}
    best, c = max(open_.items(), key=lambda pair: pair[1].overall.estimate)
    text = (
        f"Inconclusive: trial {best} ({result.said(result.rows[best].config)}) differs by "
        f"{gain_text(result, c.overall, c.overall.estimate)} {_certainty(result, c)}. So many rounds show a gain of "
        f"{gain_text(result, c.overall, c.detectable)} or more in 80 % of sweeps."
    )
    # A gain that is not worth having needs not be shown.
    sought = max(c.overall.estimate, result.smallest_gain)
    shown = gain_text(result, c.overall, sought)
    seen = "the gain seen" if sought == c.overall.estimate else "the smallest gain worth having"
    confidence = finals.confidence_of_each(finals.look.next_confidence) if finals.look else c.overall.confidence
    rounds = c.rounds_to_show(sought, confidence)
    if rounds is None:
        return (
            f"{text} More rounds would not show {shown} ({seen}): the questions differ too much in which config suits "
            "them. Ask more questions."
        )
    return f"{text} To show {shown} ({seen}), {rounds - c.rounds} more rounds are needed: final_rounds: {rounds}."


def _not_proven(result: SweepResult) -> str:
    finals = result.finals
    row = next(row for row in result.rows if row.index == finals.indexes[0])
    done = sum(row.state == "done" for row in result.rows)
    saw = "" if row.gain is None else f"the search saw {row.gain:+.1%} in trial {row.index} of {done} done"
    if not result.final_rounds:
        return f"Not proven (final_rounds: 0): {saw}."
    if finals.look is None:
        figures = "; ".join(
            f"trial {i} differs by {gain_text(result, c.overall, c.overall.estimate)} after {c.rounds} rounds"
            for i, c in finals.so_far.items()
        )
        missing = f"but not all {result.final_rounds} rounds of the finals are measured, and there is no verdict before"
        return f"Not proven: {saw}, {missing}. {f'So far, {figures}. ' if figures else ''}{_KEPT}"
    return f"Not proven: {saw}, but no finalist was measured in all rounds of the finals. {_KEPT}"


def _unjudged(finals: Finals) -> list[str]:
    """What failed and is therefore out."""
    if finals.look is None:
        return []
    out = [i for i in (0, *finals.indexes) if i in finals.problems and i not in finals.comparisons]
    return [
        f"{f'Trial {i}' if i else 'The current config'} was not measured in all rounds, so it can not win: "
        f"{finals.problems[i]}."
        if i
        else f"The current config was not measured in all rounds, so nothing can beat it: {finals.problems[i]}."
        for i in out
    ]


def _asked(finals: Finals) -> list[str]:
    """Whether the finals' questions were new."""
    if not finals.asked:
        return []
    if finals.unseen == finals.asked:
        return [f"The search had asked none of the finals' {finals.asked} questions."]
    return [
        f"The search had asked {finals.asked - finals.unseen} of the finals' {finals.asked} questions, so part of a "
        f"gain may be of these questions only (optimizer.numeric.holdout splits {MIN_TO_SPLIT} or more)."
    ]


def _certainty(result: SweepResult, c: Comparison) -> str:
    look, count = result.finals.look, len(result.finals.indexes)
    together = f" for all {count} finalists together" if count > 1 else ""
    sure = f"{look.confidence:.1%} confidence{together}" if look else f"{c.overall.confidence:.1%} confidence"
    again = f", verdict {look.number} on this study" if look and look.number > 1 else ""
    low, high = (gain_text(result, c.overall, end) for end in (c.overall.low, c.overall.high))
    return f"({low} to {high}, {sure}{again}; {c.rounds} fresh rounds of {c.questions} questions)"


def _figures(result: SweepResult, c: Comparison) -> str:
    """The winner's values, with their intervals, and the current config's."""
    values = "; ".join(
        f"{o.name} {o.shown(ours.estimate)} ({o.shown(ours.low)} to {o.shown(ours.high)}) "
        f"instead of {o.shown(theirs.estimate)} ({o.shown(theirs.low)} to {o.shown(theirs.high)})"
        for o, ours, theirs in zip(result.objectives, c.values, c.baseline, strict=True)
    )
    return f"{values}; in brackets, where the mean over many such rounds on these questions lies"
