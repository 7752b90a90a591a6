"""The charts of the report, made with Plotly."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nat_dynamo_plugin.sweep.interval import Interval
from nat_dynamo_plugin.sweep.results import SweepResult, TrialRow
from nat_dynamo_plugin.sweep.verdict import Objective

_INK, _MUTED, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_BEST, _CURRENT, _BAD, _POINT = "#3f9142", "#d9822b", "#cf4b4b", "#4a6fa5"
_FINALIST = {"size": 17, "color": _INK, "symbol": "circle-open", "line": {"width": 2}}
_AS_CURRENT = {"color": _CURRENT, "dash": "dash"}
_CURRENT_MARKER = {"size": 13, "color": _CURRENT, "symbol": "diamond"}
_LEVELS = ("LOW", "MEDIUM", "HIGH")


def charts(result: SweepResult) -> dict[str, Any]:
    """The figures that the data suffice for, by the name that the page has for them."""
    made = {
        "history": history(result),
        "finals": finals(result),
        "rounds": rounds(result),
        "importance": importance(result),
        "tradeoff": tradeoff(result),
        "slices": slices(result),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def _styled(figure: Any, height: int = 340) -> Any:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 70, "r": 20, "t": 20, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    axis = {"gridcolor": _GRID, "zeroline": False, "automargin": True, "title_font_size": 13, "title_standoff": 12}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _title(objective: Objective) -> str:
    better = "lower" if objective.direction == "minimize" else "higher"
    unit = f", {objective.unit}" if objective.unit else ""
    return f"{objective.name}{unit} ({better} is better)"


def _points(
    figure: Any, result: SweepResult, rows: Sequence[TrialRow], x: Sequence[Any], y: Sequence[Any], **more: Any
) -> None:
    """A point a trial, which tells all about it under the mouse."""
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        text=[_hover(row, result) for row in rows],
        hovertemplate="%{text}<extra></extra>",
        **more,
    )


def _hover(row: TrialRow, result: SweepResult) -> str:
    lines = [f"{result.names[path]}={value}" for path, value in row.config.items()]
    if row.values:
        lines += [f"{o.name} {o.shown(v)}" for o, v in zip(result.objectives, row.values, strict=True)]
    if row.gain is not None and row.index:
        lines.append(f"{row.gain:+.1%} against the current config")
    if row.problem:
        lines.append(row.problem[:80])
    return "<br>".join([f"<b>trial {row.index}</b> {row.state}", *(escape(line, quote=False) for line in lines)])


def _mark_finalists(
    figure: Any, result: SweepResult, rows: Sequence[TrialRow], x: Sequence[Any], y: Sequence[Any], **more: Any
) -> None:
    """A ring around each finalist."""
    found = [(a, b) for row, a, b in zip(rows, x, y, strict=True) if row.index in result.finals.indexes]
    if found:
        figure.add_scatter(
            x=[a for a, _ in found],
            y=[b for _, b in found],
            mode="markers",
            name="finalist",
            hoverinfo="skip",
            marker=_FINALIST,
            **more,
        )


def history(result: SweepResult) -> Any | None:
    """Every trial's first objective in the order of the plan, the best so far, and the current config's level."""
    objective = result.objectives[0]
    done = [(row, row.values[0]) for row in result.rows if row.values]
    if not done or done[0][0].index != 0:
        return None
    figure = _styled(go.Figure())
    level = done[0][1]
    figure.add_hline(y=level, line=_AS_CURRENT, annotation_text="current config")
    for name, part, marker in (
        ("trial", done[1:], {"size": 9, "color": _POINT}),
        ("current config", done[:1], _CURRENT_MARKER),
    ):
        rows, values = [row for row, _ in part], [value for _, value in part]
        _points(figure, result, rows, [row.index for row in rows], values, name=name, marker=marker)
    _mark_finalists(figure, result, [r for r, _ in done], [r.index for r, _ in done], [value for _, value in done])
    best, better = [level], min if objective.direction == "minimize" else max
    for _, value in done[1:]:
        best.append(better(best[-1], value))
    figure.add_scatter(
        x=[row.index for row, _ in done],
        y=best,
        mode="lines",
        name="best so far",
        hoverinfo="skip",
        line={"color": _MUTED, "shape": "hv", "width": 2},  # green is for what is proven
    )
    low, high = min(value for _, value in done), max(value for _, value in done)
    floor = low - 0.08 * (high - low or 1)
    for state, colour in (("stopped early", _MUTED), ("failed", _BAD)):
        rows = [row for row in result.rows if row.state == state]
        marker = {"size": 9, "color": colour, "symbol": "x"}
        if rows:
            _points(figure, result, rows, [r.index for r in rows], [floor] * len(rows), name=state, marker=marker)
    figure.update_xaxes(title="trial", **({"dtick": 1} if len(result.rows) < 30 else {}))
    figure.update_yaxes(title=_title(objective))
    return figure


def finals(result: SweepResult) -> Any | None:
    """The gain of each finalist in each objective with its interval."""
    gains: list[tuple[str, Interval]] = []
    for index, comparison in result.finals.comparisons.items():
        named = [(o.name, gain) for o, gain in zip(result.objectives, comparison.gains, strict=True)]
        if len(named) > 1:
            named.append(("weighted", comparison.overall))
        gains += [(f"trial {index}: {name}", gain) for name, gain in named]
    if not gains:
        return None
    figure = _styled(go.Figure(), 110 + 46 * len(gains))
    figure.add_vline(x=0, line=_AS_CURRENT)
    for label, gain in gains:
        colour = _BEST if gain.low > 0 else _BAD if gain.high < 0 else _MUTED
        figure.add_scatter(
            x=[gain.estimate],
            y=[label],
            mode="markers+text",
            marker={"size": 11, "color": colour},
            showlegend=False,
            text=[f"{gain.estimate:+.1%}"],
            textposition="top center",
            cliponaxis=False,
            error_x={
                "array": [gain.high - gain.estimate],
                "arrayminus": [gain.estimate - gain.low],
                "color": colour,
                "thickness": 2,
                "width": 6,
            },
            hovertemplate=f"{label}: {gain.estimate:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})<extra></extra>",
        )
    figure.update_xaxes(title="gain (0: as good as now)", tickformat="+.1~%")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def rounds(result: SweepResult) -> Any | None:
    """The evidence: one dot a round and config, those of one round joined, for the first objective."""
    objective = result.objectives[0]
    arms = [arm for arm in (0, *result.finals.indexes) if result.finals.rounds.get(arm)]
    if 0 not in arms or len(arms) < 2:
        return None
    figure = _styled(go.Figure(), 340)
    labels = {arm: f"trial {arm}" if arm else "current config" for arm in arms}
    for number in sorted(result.finals.rounds[0]):
        measured = [arm for arm in arms if number in result.finals.rounds[arm]]
        values = [result.finals.rounds[arm][number][objective.name] for arm in measured]
        figure.add_scatter(
            x=[labels[arm] for arm in measured],
            y=values,
            mode="lines+markers",
            line={"color": _GRID, "width": 2},
            marker={"size": 10, "color": [_POINT if arm else _CURRENT for arm in measured]},
            text=[
                f"{labels[arm]}, round {number + 1}: {objective.shown(v)}"
                for arm, v in zip(measured, values, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    figure.update_xaxes(type="category")
    figure.update_yaxes(title=_title(objective))
    return figure


def importance(result: SweepResult) -> Any | None:
    """How much of the difference between trials each tuned value explains."""
    if not result.importance:
        return None
    pairs = sorted(result.importance.items(), key=lambda pair: pair[1])
    figure = _styled(go.Figure(), 90 + 44 * len(pairs))
    figure.add_bar(
        x=[value for _, value in pairs],
        y=[result.names[path] for path, _ in pairs],
        orientation="h",
        marker={"color": _POINT},
        text=[f"{value:.0%}" for _, value in pairs],
        textposition="auto",
        hoverinfo="skip",
    )
    figure.update_xaxes(title="importance", tickformat=".0%", range=[0, 1])
    return figure


def tradeoff(result: SweepResult) -> Any | None:
    """The first two metrics against each other; with two objectives, the set of trials that no other beats in both."""
    axes = result.axes[:2]
    rows = [row for row in result.rows if row.values]
    if len(axes) < 2 or not rows:
        return None
    objectives = {o.name: o for o in result.objectives}

    def value(row: TrialRow, axis: str) -> float | None:
        return dict(zip(objectives, row.values or (), strict=True)).get(axis, row.others.get(axis))

    figure = _styled(go.Figure())
    for name, group, marker in (
        ("trial", [r for r in rows if r.index and not r.pareto], {"size": 9, "color": _POINT}),
        ("Pareto set", [r for r in rows if r.index and r.pareto], {"size": 12, "color": _INK}),
        ("current config", [r for r in rows if not r.index], _CURRENT_MARKER),
    ):
        if group:
            x, y = ([value(row, axis) for row in group] for axis in axes)
            _points(figure, result, group, x, y, name=name, marker=marker)
    _mark_finalists(figure, result, rows, *([value(row, axis) for row in rows] for axis in axes))
    for update, axis in zip((figure.update_xaxes, figure.update_yaxes), axes, strict=True):
        update(title=_title(objectives[axis]) if axis in objectives else axis)
    return figure


def slices(result: SweepResult) -> Any | None:
    """The gain by each tuned value, one panel a value."""
    rows = [row for row in result.rows if row.gain is not None]
    if len(rows) < 2:
        return None
    panels = make_subplots(rows=1, cols=len(result.current), shared_yaxes=True, horizontal_spacing=0.03)
    figure = _styled(panels, 320)
    marker = {
        "size": [9 if row.index else 13 for row in rows],
        "color": [_POINT if row.index else _CURRENT for row in rows],
        "symbol": ["circle" if row.index else "diamond" for row in rows],
        "opacity": 0.85,
    }
    gains = [row.gain for row in rows]
    for column, path in enumerate(result.current, start=1):
        values = [row.config.get(path) for row in rows]
        panel: dict[str, Any] = {"row": 1, "col": column}
        figure.update_xaxes(title=result.names[path], **panel)
        if any(isinstance(value, str | bool) for value in values):
            values = [str(value) for value in values]
            order = sorted(set(values), key=lambda v: (_LEVELS.index(v) if v in _LEVELS else len(_LEVELS), v))
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=order, **panel)
        _points(figure, result, rows, values, gains, marker=marker, showlegend=False, **panel)
        _mark_finalists(figure, result, rows, values, gains, showlegend=False, **panel)
    figure.update_yaxes(title="gain in the search", tickformat="+.1~%", col=1)
    figure.add_hline(y=0, line=_AS_CURRENT)
    return figure
