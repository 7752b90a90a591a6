"""How a page shows two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nat_dynamo_plugin.cli.formats import value
from nat_dynamo_plugin.cli.report import figures
from nat_dynamo_plugin.cli.report.compare import Change, compare, settings_that_differ
from nat_dynamo_plugin.cli.report.run import Run
from nat_dynamo_plugin.drawing.charts import Range, Series, cumulative, ranges
from nat_dynamo_plugin.secrets import redacted

_TONES = {"better": ("good", "▲ better"), "worse": ("bad", "▼ worse"), "changed": ("", "changed")}
_COLOURS = {"better": "s3", "worse": "s2", "changed": "s1"}


def comparison(before: Run, name_before: str, after: Run, name_after: str) -> dict[str, Any]:
    """What the template wants to know."""
    try:
        changes, problem = compare(before, after), ""
    except ModuleNotFoundError as error:
        changes, problem = [], f"Intervals need {error.name}: pip install 'nat-dynamo-plugin[eval]'."
    if not changes and not problem:
        problem = "There is nothing to compare: fewer than three questions have the same id and an answer in both runs."
    return {
        "before": name_before,
        "after": name_after,
        "rows": [_row(change) for change in changes],
        "problem": problem,
        "charts": _charts(changes, (before, after), (name_before, name_after)),
        "settings": [
            (name, redacted(one), redacted(other))
            for name, one, other in settings_that_differ(before.config, after.config)
        ],
        "has_configs": bool(before.config and after.config),
    }


def _row(change: Change) -> dict[str, Any]:
    tone, said = _TONES.get(change.verdict, ("soft", change.verdict))
    return {
        "name": change.name,
        "before": _figure(change.before, change.unit),
        "after": _figure(change.after, change.unit),
        "change": _change(change),
        "pairs": f"{change.pairs:,}",
        "verdict": said,
        "tone": tone,
    }


def _figure(number: float, unit: str) -> str:
    return f"{number:,.0f}" if unit == "tokens" else value(number, unit)


def _change(change: Change) -> str:
    if change.is_difference and not change.unit:
        return f"{change.estimate:+.3g} ({change.low:+.3g} to {change.high:+.3g})"
    unit = " points" if change.is_difference else " %"
    return f"{100 * change.estimate:+.1f}{unit} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _charts(changes: Sequence[Change], runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    charts: list[dict[str, Any]] = []
    for name, those in (
        ("Change, relative", [change for change in changes if not change.is_difference]),
        ("Change, in percentage points", [one for one in changes if one.is_difference and one.unit]),
    ):
        rows = [
            Range(one.name, one.estimate, one.low, one.high, _change(one), _COLOURS.get(one.verdict, "s8"))
            for one in those
        ]
        if rows:
            charts.append({"name": name, "picture": ranges(rows, unit="", label=name, percent=True)})
    for name, unit, values in (
        ("Time to first token", "ms", [figures.ttfts(run.calls) for run in runs]),
        ("Time of a question", "s", [figures.question_times(run.questions) for run in runs]),
    ):
        series = [Series(of, those) for of, those in zip(names, values, strict=True)]
        if all(values):
            shown = f"{name}: {names[0]} blue, {names[1]} orange"
            charts.append({"name": shown, "picture": cumulative(series, unit=unit, label=shown)})
    return charts
