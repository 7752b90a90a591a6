"""The verdict of a sweep in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nat_dynamo_plugin.sweep.config import DynamoSweepConfig
from nat_dynamo_plugin.sweep.progress import shown
from nat_dynamo_plugin.sweep.results import Finals, TrialRow
from nat_dynamo_plugin.sweep.verdict import Comparison, Objective


def figures(objectives: Sequence[Objective], comparison: Comparison) -> str:
    """The winner's values, with their intervals, and the current config's."""
    return "; ".join(
        f"{o.name} {shown(ours.estimate, o)} ({shown(ours.low, o)} to {shown(ours.high, o)}) "
        f"instead of {shown(theirs.estimate, o)}"
        for o, ours, theirs in zip(objectives, comparison.values, comparison.baseline, strict=True)
    )


def verdict_text(
    rows: Sequence[TrialRow],
    finals: Finals,
    config: DynamoSweepConfig,
    interrupted: bool,
    names: Mapping[str, str],
    objectives: Sequence[Objective],
) -> str:
    """The verdict in a few sentences."""
    done = sum(row.state == "done" for row in rows)
    if not any(row.index == 0 and row.state == "done" for row in rows):
        return "Nothing can be said: the current config was not measured."
    if finals.winner is not None:
        c = finals.comparisons[finals.winner]
        said = ", ".join(f"{names.get(k, k)}={v}" for k, v in rows[finals.winner].config.items())
        return (
            f"Trial {finals.winner} ({said}) beats the current config by {c.overall.estimate:.1%} "
            f"({c.overall.low:.1%} to {c.overall.high:.1%}, {c.overall.confidence:.1%} confidence), measured in "
            f"{c.rounds} fresh rounds of {c.questions} questions: {figures(objectives, c)}."
        )
    if finals.comparisons:
        best = max(finals.comparisons, key=lambda i: finals.comparisons[i].overall.estimate)
        c = finals.comparisons[best]
        return (
            f"Nothing beat the current config: the best finalist, trial {best}, differs by {c.overall.estimate:+.1%} "
            f"({c.overall.low:.1%} to {c.overall.high:.1%}, {c.overall.confidence:.1%} confidence), measured in "
            f"{c.rounds} fresh rounds of {c.questions} questions. optimized_config.yml keeps the current values."
        )
    if finals.indexes and (interrupted or config.final_rounds):
        best_row = next(row for row in rows if row.index == finals.indexes[0])
        return (
            f"Not proven: the search saw {best_row.gain:+.1%} in trial {best_row.index} of {done} done, but the finals "
            "are missing. optimized_config.yml keeps the current values."
        )
    if finals.indexes:
        best_row = next(row for row in rows if row.index == finals.indexes[0])
        return f"Not proven (final_rounds: 0): the search saw {best_row.gain:+.1%} in trial {best_row.index}."
    return "Nothing to compare: no other configuration was measured. optimized_config.yml keeps the current values."
