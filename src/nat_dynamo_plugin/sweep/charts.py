"""The charts of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from nat_dynamo_plugin.drawing.charts import Bar, Range, ranges, shares
from nat_dynamo_plugin.drawing.scatter import Line, Point, scatter
from nat_dynamo_plugin.drawing.svg import element, joined
from nat_dynamo_plugin.sweep.interval import Interval
from nat_dynamo_plugin.sweep.results import SweepResult, TrialRow
from nat_dynamo_plugin.sweep.verdict import Objective

# Green, `s3`, is for what is proven.
_PROVEN, _CURRENT, _BAD, _TRIAL, _MUTED, _INK = "s3", "s5", "s2", "s1", "s8", "ink"
_LEVELS = ("LOW", "MEDIUM", "HIGH")


def charts(result: SweepResult) -> dict[str, Markup]:
    """The pictures that the data suffice for, by the name that the page has for them."""
    made = {
        "history": history(result),
        "finals": finals(result),
        "rounds": rounds(result),
        "importance": importance(result),
        "tradeoff": tradeoff(result),
        "slices": slices(result),
    }
    return {name: picture for name, picture in made.items() if picture is not None}


def _title(objective: Objective) -> str:
    better = "lower" if objective.direction == "minimize" else "higher"
    unit = f", {objective.unit}" if objective.unit else ""
    return f"{objective.name}{unit} ({better} is better)"


def _note(row: TrialRow, result: SweepResult) -> str:
    """All about a trial."""
    lines = [f"trial {row.index} {row.state}"]
    lines += [f"{result.names[path]}={value}" for path, value in row.config.items()]
    if row.values:
        lines += [f"{o.name} {o.shown(v)}" for o, v in zip(result.objectives, row.values, strict=True)]
    if row.gain is not None and row.index:
        lines.append(f"{row.gain:+.1%} against the current config")
    if row.problem:
        lines.append(row.problem[:80])
    return "\n".join(lines)


def _points(result: SweepResult, places: Sequence[tuple[TrialRow, float, float]]) -> list[Point]:
    """A point a trial, the current config's as a diamond, and a ring around each finalist."""
    points = []
    for row, x, y in places:
        tone, symbol = (_TRIAL, "circle") if row.index else (_CURRENT, "diamond")
        if row.index in result.finals.indexes:
            points.append(Point(x, y, _INK, "ring"))
        points.append(Point(x, y, tone, symbol, _note(row, result)))
    return points


def history(result: SweepResult) -> Markup | None:
    """Every trial's first objective in the order of the plan, the best so far, and the current config's level."""
    objective = result.objectives[0]
    done = [(row, row.values[0]) for row in result.rows if row.values]
    if not done or done[0][0].index != 0:
        return None
    level = done[0][1]
    best, better = [(0.0, level)], min if objective.direction == "minimize" else max
    for row, value in done[1:]:
        best.append((float(row.index), better(best[-1][1], value)))
    points = _points(result, [(row, float(row.index), value) for row, value in done])
    low, high = min(value for _, value in done), max(value for _, value in done)
    floor = low - 0.08 * (high - low or 1)
    points += [
        Point(float(row.index), floor, tone, "cross", _note(row, result))
        for state, tone in (("stopped early", _MUTED), ("failed", _BAD))
        for row in result.rows
        if row.state == state
    ]
    return scatter(
        points, across="trial", up=_title(objective), label="trials in their order",
        lines=[Line(best, _MUTED, steps=True)], level=level,
    )  # fmt: skip


def finals(result: SweepResult) -> Markup | None:
    """The gain of each finalist in each objective with its interval."""
    gains: list[tuple[str, Interval]] = []
    for index, comparison in result.finals.comparisons.items():
        named = [(o.name, gain) for o, gain in zip(result.objectives, comparison.gains, strict=True)]
        if len(named) > 1:
            named.append(("weighted", comparison.overall))
        gains += [(f"trial {index}: {name}", gain) for name, gain in named]
    if not gains:
        return None
    rows = [
        Range(
            label, gain.estimate, gain.low, gain.high, f"{gain.estimate:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})",
            _PROVEN if gain.low > 0 else _BAD if gain.high < 0 else _MUTED,
        )
        for label, gain in gains
    ]  # fmt: skip
    return ranges(rows, unit="", label="gains of the finalists; 0 is as good as now", percent=True)


def rounds(result: SweepResult) -> Markup | None:
    """The evidence: one dot a round and config, those of one round joined, for the first objective."""
    objective = result.objectives[0]
    arms = [arm for arm in (0, *result.finals.indexes) if result.finals.rounds.get(arm)]
    if 0 not in arms or len(arms) < 2:
        return None
    names = [f"trial {arm}" if arm else "current config" for arm in arms]
    lines, points = [], []
    for number in sorted(result.finals.rounds[0]):
        measured = [
            (float(place), arm, result.finals.rounds[arm][number][objective.name])
            for place, arm in enumerate(arms)
            if number in result.finals.rounds[arm]
        ]
        lines.append(Line([(place, value) for place, _, value in measured], _MUTED))
        points += [
            Point(place, value, _TRIAL if arm else _CURRENT, "circle" if arm else "diamond",
                  f"{names[int(place)]}, round {number + 1}: {objective.shown(value)}")
            for place, arm, value in measured
        ]  # fmt: skip
    return scatter(points, across="", up=_title(objective), label="round by round", lines=lines, names=names)


def importance(result: SweepResult) -> Markup | None:
    """How much of the difference between trials each tuned value explains."""
    if not result.importance:
        return None
    pairs = sorted(result.importance.items(), key=lambda pair: -pair[1])
    return shares([Bar(result.names[path], value) for path, value in pairs], label="importance of each tuned value")


def tradeoff(result: SweepResult) -> Markup | None:
    """The first two metrics against each other; with two objectives, the set of trials that no other beats in both."""
    axes = result.axes[:2]
    rows = [row for row in result.rows if row.values]
    if len(axes) < 2 or not rows:
        return None
    objectives = {o.name: o for o in result.objectives}

    def value(row: TrialRow, axis: str) -> float | None:
        return dict(zip(objectives, row.values or (), strict=True)).get(axis, row.others.get(axis))

    places = [(row, x, y) for row in rows if (x := value(row, axes[0])) is not None
              and (y := value(row, axes[1])) is not None]  # fmt: skip
    if not places:
        return None
    best = sorted((x, y) for row, x, y in places if row.pareto)
    titles = [_title(objectives[axis]) if axis in objectives else axis for axis in axes]
    return scatter(
        _points(result, places), across=titles[0], up=titles[1], label=f"{axes[0]} and {axes[1]}",
        lines=[Line(best, _INK)] if len(best) > 1 else [],
    )  # fmt: skip


def slices(result: SweepResult) -> Markup | None:
    """The gain by each tuned value, a picture a value."""
    rows = [(row, row.gain) for row in result.rows if row.gain is not None]
    if len(rows) < 2:
        return None
    made = []
    for path in result.current:
        values: list[Any] = [row.config.get(path) for row, _ in rows]
        names: list[str] = []
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            values = [str(value) for value in values]
            names = sorted(set(values), key=lambda v: (_LEVELS.index(v) if v in _LEVELS else len(_LEVELS), v))
            values = [names.index(value) for value in values]
        places = [(row, float(value), gain) for (row, gain), value in zip(rows, values, strict=True)]
        drawn = scatter(
            _points(result, places), across=result.names[path], up="gain in the search", names=names, level=0.0,
            percent=True, label=f"gain by {result.names[path]}",
        )  # fmt: skip
        made.append(element("figure", drawn))
    return joined(made)
