"""report.html: one file with everything in it, which needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nat_dynamo_plugin.sweep.progress import shown
from nat_dynamo_plugin.sweep.results import SweepResult, TrialRow
from nat_dynamo_plugin.sweep.verdict import Objective

_INK, _MUTED, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_BEST, _CURRENT, _BAD, _POINT = "#3f9142", "#d9822b", "#cf4b4b", "#4a6fa5"
_COLOURS = {"done": _POINT, "stopped early": _MUTED, "failed": _BAD}


def report_html(result: SweepResult, names: Mapping[str, str]) -> str:
    """The report of a sweep as an HTML page of its own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "" if value is None else f"{value:+.1%}"
    figures = {
        "history": history(result, names),
        "finals": finals(result),
        "importance": importance(result, names),
        "tradeoff": tradeoff(result, names),
        "slices": slices(result, names),
    }
    return environment.get_template("report.html.j2").render(
        result=result,
        names=names,
        shown=shown,
        said=lambda config: said(config, names),
        figures={name: _div(figure, name) for name, figure in figures.items() if figure is not None},
        plotly=get_plotlyjs(),
        current=result.rows[0] if result.rows else None,
        winner=result.rows[result.finals.winner] if result.finals.winner is not None else None,
        axes=_axes(result)[:2],
    )


def said(config: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A configuration in one line."""
    return ", ".join(f"{names.get(path, path)}={value}" for path, value in config.items())


def _div(figure: Any, name: str) -> str:
    import plotly.io

    return str(
        plotly.io.to_html(
            figure,
            include_plotlyjs=False,
            full_html=False,
            div_id=f"figure-{name}",
            config={"displayModeBar": False, "responsive": True},
        )
    )


def _figure(height: int = 340) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    _style(figure, height)
    return figure


def _style(figure: Any, height: int) -> None:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 70, "r": 20, "t": 20, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "y": 1.12, "x": 0},
    )
    axis = {"gridcolor": _GRID, "zeroline": False, "automargin": True, "title_font_size": 13, "title_standoff": 12}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)


def _title(objective: Objective) -> str:
    better = "lower" if objective.direction == "minimize" else "higher"
    unit = f", {objective.unit}" if objective.unit else ""
    return f"{objective.name}{unit} ({better} is better)"


def _hover(row: TrialRow, result: SweepResult, names: Mapping[str, str]) -> str:
    lines = [f"<b>trial {row.index}</b> {row.state}", *(f"{names[path]}={value}" for path, value in row.config.items())]
    if row.values:
        lines += [f"{o.name} {shown(v, o)}" for o, v in zip(result.objectives, row.values, strict=True)]
    if row.gain is not None and row.index:
        lines.append(f"{row.gain:+.1%} against the current config")
    if row.problem:
        lines.append(row.problem[:80])
    return "<br>".join(_escaped(line) if "<b>" not in line else line for line in lines)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def history(result: SweepResult, names: Mapping[str, str]) -> Any | None:
    """Every trial's first objective in the order of the plan, the best so far, and the current config's level."""
    objective = result.objectives[0]
    done = [row for row in result.rows if row.values]
    if not done or done[0].index != 0:
        return None
    figure = _figure()
    level = done[0].values[0]  # type: ignore[index]
    figure.add_hline(y=level, line={"color": _CURRENT, "dash": "dash"}, annotation_text="current config")
    others = [row for row in done if row.index]
    figure.add_scatter(
        x=[row.index for row in others],
        y=[row.values[0] for row in others if row.values],
        mode="markers",
        name="trial",
        marker={"size": 9, "color": _POINT},
        hovertemplate="%{text}<extra></extra>",
        text=[_hover(row, result, names) for row in others],
    )
    figure.add_scatter(
        x=[0],
        y=[level],
        mode="markers",
        name="current config",
        marker={"size": 13, "color": _CURRENT, "symbol": "diamond"},
        hovertemplate="%{text}<extra></extra>",
        text=[_hover(done[0], result, names)],
    )
    best, line = level, []
    for row in done:
        value = row.values[0]  # type: ignore[index]
        best = min(best, value) if objective.direction == "minimize" else max(best, value)
        line.append(best)
    figure.add_scatter(
        x=[row.index for row in done],
        y=line,
        mode="lines",
        name="best so far",
        hoverinfo="skip",
        line={"color": _BEST, "shape": "hv", "width": 2},
    )
    values = [row.values[0] for row in done if row.values]
    floor = min(values) - 0.08 * (max(values) - min(values) or 1)
    for state in ("stopped early", "failed"):
        rows = [row for row in result.rows if row.state == state]
        if rows:
            figure.add_scatter(
                x=[row.index for row in rows],
                y=[floor] * len(rows),
                mode="markers",
                name=state,
                marker={"size": 9, "color": _COLOURS[state], "symbol": "x"},
                hovertemplate="%{text}<extra></extra>",
                text=[_hover(row, result, names) for row in rows],
            )
    figure.update_xaxes(title="trial", **({"dtick": 1} if len(result.rows) < 30 else {}))
    figure.update_yaxes(title=_title(objective))
    return figure


def finals(result: SweepResult) -> Any | None:
    """The gain of each finalist in each objective with its interval."""
    if not result.finals.comparisons:
        return None
    labels: list[str] = []
    points: list[tuple[float, float, float, str]] = []
    for index, comparison in result.finals.comparisons.items():
        named = [(o.name, gain) for o, gain in zip(result.objectives, comparison.gains, strict=True)]
        if len(named) > 1:
            named.append(("weighted", comparison.overall))
        for name, gain in named:
            labels.append(f"trial {index}: {name}")
            colour = _BEST if gain.low > 0 else _BAD if gain.high < 0 else _MUTED
            points.append((gain.estimate, gain.low, gain.high, colour))
    figure = _figure(110 + 46 * len(labels))
    figure.add_vline(x=0, line={"color": _CURRENT, "dash": "dash"})
    for label, (estimate, low, high, colour) in zip(labels, points, strict=True):
        figure.add_scatter(
            x=[estimate],
            y=[label],
            mode="markers+text",
            marker={"size": 11, "color": colour},
            showlegend=False,
            text=[f"{estimate:+.1%}"],
            textposition="top center",
            cliponaxis=False,
            error_x={
                "array": [high - estimate],
                "arrayminus": [estimate - low],
                "color": colour,
                "thickness": 2,
                "width": 6,
            },
            hovertemplate=f"{label}: {estimate:+.1%} ({low:+.1%} to {high:+.1%})<extra></extra>",
        )
    figure.update_xaxes(title="gain over the current config (0 = as good)", tickformat="+.0%")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def importance(result: SweepResult, names: Mapping[str, str]) -> Any | None:
    """How much of the difference between trials each tuned value explains."""
    if not result.importance:
        return None
    pairs = sorted(result.importance.items(), key=lambda pair: pair[1])
    figure = _figure(90 + 44 * len(pairs))
    figure.add_bar(
        x=[value for _, value in pairs],
        y=[names[path] for path, _ in pairs],
        orientation="h",
        marker={"color": _POINT},
        text=[f"{value:.0%}" for _, value in pairs],
        textposition="auto",
        hoverinfo="skip",
    )
    figure.update_xaxes(title="importance", tickformat=".0%", range=[0, 1])
    return figure


def _axes(result: SweepResult) -> list[str]:
    others = sorted({name for row in result.rows for name in row.others})
    return [*(o.name for o in result.objectives), *others]


def tradeoff(result: SweepResult, names: Mapping[str, str]) -> Any | None:
    """The first two metrics against each other; with two objectives, the set of trials that no other beats in both."""
    axes = _axes(result)
    rows = [row for row in result.rows if row.values]
    if len(axes) < 2 or not rows:
        return None
    objectives = {o.name: o for o in result.objectives}

    def value(row: TrialRow, axis: str) -> float | None:
        if axis in objectives and row.values:
            return row.values[result.objectives.index(objectives[axis])]
        return row.others.get(axis)

    figure = _figure()
    groups = [
        ("trial", [r for r in rows if r.index and not r.pareto], {"size": 9, "color": _POINT}),
        ("Pareto set", [r for r in rows if r.index and r.pareto], {"size": 12, "color": _BEST}),
        ("current config", [r for r in rows if not r.index], {"size": 13, "color": _CURRENT, "symbol": "diamond"}),
    ]
    for name, group, marker in groups:
        if group:
            figure.add_scatter(
                x=[value(r, axes[0]) for r in group],
                y=[value(r, axes[1]) for r in group],
                mode="markers",
                name=name,
                marker=marker,
                hovertemplate="%{text}<extra></extra>",
                text=[_hover(r, result, names) for r in group],
            )
    for update, axis in ((figure.update_xaxes, axes[0]), (figure.update_yaxes, axes[1])):
        objective = objectives.get(axis)
        update(title=_title(objective) if objective else axis)
    return figure


def slices(result: SweepResult, names: Mapping[str, str]) -> Any | None:
    """The gain by each tuned value, one panel a value."""
    from plotly.subplots import make_subplots

    rows = [row for row in result.rows if row.gain is not None]
    paths = list(result.current)
    if len(rows) < 2:
        return None
    figure = make_subplots(rows=1, cols=len(paths), shared_yaxes=True, horizontal_spacing=0.03)
    _style(figure, 320)
    for column, path in enumerate(paths, start=1):
        values = [row.config.get(path) for row in rows]
        words = any(isinstance(value, str | bool) for value in values)
        figure.add_scatter(
            x=[str(value) for value in values] if words else values,
            y=[row.gain for row in rows],
            mode="markers",
            marker={
                "size": [9 if row.index else 13 for row in rows],
                "color": [_POINT if row.index else _CURRENT for row in rows],
                "symbol": ["circle" if row.index else "diamond" for row in rows],
                "opacity": 0.85,
            },
            hovertemplate="%{text}<extra></extra>",
            text=[_hover(row, result, names) for row in rows],
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title=names[path], row=1, col=column)
        if words:
            order = {str(v): k for k, v in enumerate(("LOW", "MEDIUM", "HIGH"))}
            seen = sorted({str(value) for value in values}, key=lambda v: (order.get(v, 9), v))
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=seen, row=1, col=column)
    figure.update_yaxes(title="gain in the search", tickformat="+.0%", col=1)
    figure.add_hline(y=0, line={"color": _CURRENT, "dash": "dash"})
    return figure
