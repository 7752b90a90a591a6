"""The verdict of a sweep in words."""

from __future__ import annotations

from nat_dynamo_plugin.sweep.results import SweepResult
from nat_dynamo_plugin.sweep.verdict import Comparison

_KEPT = "optimized_config.yml keeps the current values."


def verdict_text(result: SweepResult) -> str:
    """The verdict in a few sentences."""
    finals = result.finals
    done = sum(row.state == "done" for row in result.rows)
    if not any(row.index == 0 and row.state == "done" for row in result.rows):
        return "Nothing can be said: the current config was not measured."
    if finals.winner is not None:
        c = finals.comparisons[finals.winner]
        return (
            f"Trial {finals.winner} ({result.said(result.rows[finals.winner].config)}) beats the current config by "
            f"{c.overall.estimate:.1%} {_certainty(c)}: {_figures(result, c)}."
        )
    if finals.comparisons:
        best, c = max(finals.comparisons.items(), key=lambda pair: pair[1].overall.estimate)
        return (
            f"Nothing beat the current config: the best finalist, trial {best}, differs by {c.overall.estimate:+.1%} "
            f"{_certainty(c)}. {_KEPT}"
        )
    if not finals.indexes:
        return f"Nothing to compare: no other configuration was measured. {_KEPT}"
    row = next(row for row in result.rows if row.index == finals.indexes[0])
    saw = f"the search saw {row.gain:+.1%} in trial {row.index}"
    if result.interrupted or result.final_rounds:
        return f"Not proven: {saw} of {done} done, but the finals are missing. {_KEPT}"
    return f"Not proven (final_rounds: 0): {saw}."


def _certainty(c: Comparison) -> str:
    return (
        f"({c.overall.low:.1%} to {c.overall.high:.1%}, {c.overall.confidence:.1%} confidence), measured in "
        f"{c.rounds} fresh rounds of {c.questions} questions"
    )


def _figures(result: SweepResult, c: Comparison) -> str:
    """The winner's values, with their intervals, and the current config's."""
    return "; ".join(
        f"{o.name} {o.shown(ours.estimate)} ({o.shown(ours.low)} to {o.shown(ours.high)}) "
        f"instead of {o.shown(theirs.estimate)}"
        for o, ours, theirs in zip(result.objectives, c.values, c.baseline, strict=True)
    )
