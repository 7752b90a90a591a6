"""Small charts that stay readable on a phone: each is drawn 340 units wide, and a page puts them side by side.

Colours are classes (`s1` to `s8` for series) that the page's style sheet gives, in the light and in the dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nat_dynamo_plugin.drawing.scales import Scale, short
from nat_dynamo_plugin.drawing.svg import element, number, picture, title

WIDTH = 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 330.0, 10.0, 32.0
_POINTS = 120


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: in the legend and the tooltip.
        values: what was measured; at least one.
    """

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: under it, or before it.
        value: its length.
        note: its tooltip.
    """

    label: str
    value: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Range:
    """An estimate with its interval.

    Attributes:
        label: what it is of.
        estimate: within `low` to `high`.
        low: lower end.
        high: upper end.
        told: the figures in words.
        tone: class of its colour.
    """

    label: str
    estimate: float
    low: float
    high: float
    told: str
    tone: str = "s1"


def cumulative(series: Sequence[Series], *, unit: str, label: str, height: float = 190.0) -> Markup:
    """Which share of the values is at most so large, on a logarithmic axis; p50 and p95 are marked.

    Args:
        series: those without a value are left out.
        unit: of the values, under the axis.
        label: what a screen reader says.
        height: of the drawing.
    """
    shown = [(n, one.name, sorted(one.values)) for n, one in enumerate(series, start=1) if one.values]
    floor = min((v for _, _, values in shown for v in values if v > 0), default=1.0)
    across = Scale.over([max(v, floor) for _, _, values in shown for v in values], _LEFT, _RIGHT, logarithmic=True)
    up = Scale(0.0, 1.0, height - _BOTTOM, _TOP)
    parts = [*_axes(across, up, height, unit, [0, 0.5, 0.95], percent=True)]
    for n, name, values in shown:
        line = " ".join(
            f"{number(across.place(max(quantile_of(values, k / _POINTS), floor)))},{number(up.place(k / _POINTS))}"
            for k in range(_POINTS + 1)
        )
        p50, p95 = (quantile_of(values, q) for q in (0.5, 0.95))
        told = f"{name}: p50 {p50:,.4g} {unit}, p95 {p95:,.4g} {unit}, of {len(values):,}"
        parts.append(element("polyline", title(told), points=line, class_=f"line s{n}"))
        parts += [
            element("circle", title(told), cx=across.place(max(q, floor)), cy=up.place(at), r=3.5, class_=f"dot s{n}")
            for q, at in ((p50, 0.5), (p95, 0.95))
        ]
    return picture(WIDTH, height, parts, label=label)


def columns(
    bars: Sequence[Bar], *, unit: str, under: str, label: str, height: float = 190.0, share: bool = False
) -> Markup:
    """Upright bars from zero; `share`: the axis is 0 to 100 %."""
    up = (
        Scale(0.0, 1.0, height - _BOTTOM, _TOP)
        if share
        else Scale.over([bar.value for bar in bars], height - _BOTTOM, _TOP, zero=True)
    )
    across = Scale(0.0, float(max(1, len(bars))), _LEFT, _RIGHT)
    ticks = [0, 0.25, 0.5, 0.75, 1] if share else up.ticks(4)
    parts = [*_axes(None, up, height, under, ticks, percent=share, unit_up=unit)]
    room = across.place(1) - across.place(0)
    every = max(1, round(24 / room + 0.49))
    for n, bar in enumerate(bars):
        top, foot = up.place(max(bar.value, 0)), up.place(max(0.0, up.low))
        at = across.place(n)
        parts.append(
            element(
                "rect",
                title(bar.note),
                x=at + room * 0.12,
                y=top,
                width=room * 0.76,
                height=max(foot - top, 0.5),
                class_="fill s1",
            )
        )
        if n % every == 0:
            parts.append(element("text", bar.label, x=at + room / 2, y=height - _BOTTOM + 13, class_="mid"))
    return picture(WIDTH, height, parts, label=label)


def ranges(rows: Sequence[Range], *, unit: str, label: str, percent: bool = False) -> Markup:
    """Estimates and their intervals beside a line at zero, one under the other."""
    step, top = 40.0, 6.0
    height = top + step * len(rows) + 24
    across = Scale.over([v for row in rows for v in (row.low, row.high)], 14, WIDTH - 14, zero=True)
    parts = [
        *(
            element("text", f"{100 * tick:+.4g} %" if percent else short(tick), x=across.place(tick), y=height - 8,
                    class_="mid")
            for tick in across.ticks(4)
        ),
    ]  # fmt: skip
    for n, row in enumerate(rows):
        y = top + step * n + 28
        low, at, high = (across.place(v) for v in (row.low, row.estimate, row.high))
        told = title(f"{row.label}: {row.told} {unit}".rstrip())
        parts += [
            element("text", row.label, x=2, y=y - 12, class_="name"),
            element("text", row.told, x=WIDTH - 2, y=y - 12, class_="end"),
            element("line", x1=across.place(0), x2=across.place(0), y1=y - 7, y2=y + 7, class_="zero"),
            element("line", told, x1=low, x2=high, y1=y, y2=y, class_=f"line {row.tone}", stroke_width=3),
            element("circle", told, cx=at, cy=y, r=4.5, class_=f"dot {row.tone}"),
        ]
    return picture(WIDTH, height, parts, label=label)


def _axes(
    across: Scale | None,
    up: Scale,
    height: float,
    under: str,
    ticks: Sequence[float],
    *,
    percent: bool,
    unit_up: str = "",
) -> list[Markup]:
    foot = height - _BOTTOM
    parts = []
    for tick in ticks:
        y = up.place(tick)
        parts.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"))
        text = f"{100 * tick:.0f}%" if percent else short(tick)
        parts.append(element("text", text, x=_LEFT - 5, y=y + 4, class_="end"))
    for tick in across.ticks(6) if across else ():
        parts.append(element("line", x1=across.place(tick), x2=across.place(tick), y1=foot, y2=foot + 4, class_="grid"))  # type: ignore[union-attr]
        parts.append(element("text", short(tick), x=across.place(tick), y=foot + 15, class_="mid"))  # type: ignore[union-attr]
    parts.append(element("text", under, x=_RIGHT, y=height - 4, class_="end soft"))
    if unit_up:
        parts.append(element("text", unit_up, x=_LEFT + 3, y=_TOP + 4, class_="soft"))
    return parts


def quantile_of(ordered: Sequence[float], share: float) -> float:
    """Of values in order, between its two neighbours (numpy's default)."""
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def shares(bars: Sequence[Bar], *, label: str) -> Markup:
    """Lying bars of shares, 0 to 100 %, each with its name above and its figure behind."""
    step = 34.0
    parts = []
    for n, bar in enumerate(bars):
        y, wide = step * n, (WIDTH - 60) * min(max(bar.value, 0.0), 1.0)
        parts += [
            element("text", bar.label, x=2, y=y + 11, class_="name"),
            element("rect", title(bar.note), x=2, y=y + 15, width=max(wide, 0.5), height=12, class_="fill s1"),
            element("text", f"{bar.value:.0%}", x=wide + 8, y=y + 25),
        ]
    return picture(WIDTH, step * max(1, len(bars)), parts, label=label)
