"""Points on two axes, of which the one across may have names instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nat_dynamo_plugin.drawing.charts import WIDTH
from nat_dynamo_plugin.drawing.scales import Scale, short
from nat_dynamo_plugin.drawing.svg import element, number, picture, title

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 330.0, 20.0, 36.0
_AROUND = 0.06
"""What an axis has beyond its outermost points, as a share of its length."""
_MOST_NAMES = 14
_SYMBOLS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "diamond": "M0-6l6 6l-6 6l-6-6z",
    "cross": "M-4-4l8 8M4-4l-8 8",
    "ring": "M-8 0a8 8 0 1 0 16 0a8 8 0 1 0-16 0z",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A point.

    Attributes:
        x: across; of an axis with names the number of the name, from 0.
        y: up.
        tone: class of its colour.
        symbol: `circle`, `diamond`, `cross` or `ring`.
        note: its tooltip.
    """

    x: float
    y: float
    tone: str = "s1"
    symbol: str = "circle"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Points that are joined.

    Attributes:
        points: x and y.
        tone: class of its colour.
        steps: whether it goes across first and then up or down.
    """

    points: Sequence[tuple[float, float]]
    tone: str = "s8"
    steps: bool = False


def scatter(
    points: Sequence[Point],
    *,
    across: str,
    up: str,
    label: str,
    lines: Sequence[Line] = (),
    names: Sequence[str] = (),
    level: float | None = None,
    percent: bool = False,
    height: float = 230.0,
) -> Markup:
    """Points and lines.

    Args:
        points: at least one.
        across: title of the axis across.
        up: title of the axis up.
        label: what a screen reader says.
        lines: below the points.
        names: of the places across, if they have any.
        level: a dashed line across.
        percent: whether `up` is a share, with its sign.
        height: of the drawing.
    """
    xs = [float(n) for n in range(len(names))] or [point.x for point in points]
    ys = [point.y for point in points] + ([] if level is None else [level])
    x_axis = _wider(Scale.over(xs, _LEFT, _RIGHT), 0.5 if names else 0.0)
    y_axis = _wider(Scale.over(ys, height - _BOTTOM, _TOP))
    parts = [*_frame(x_axis, y_axis, names, (across, up), height, percent)]
    if level is not None:
        y = y_axis.place(level)
        parts.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="zero"))
    parts += [element("path", d=_path(line, x_axis, y_axis), class_=f"line {line.tone}") for line in lines]
    parts += [_point(point, x_axis, y_axis) for point in points]
    return picture(WIDTH, height, parts, label=label)


def _point(point: Point, x_axis: Scale, y_axis: Scale) -> Markup:
    place = f"translate({number(x_axis.place(point.x))} {number(y_axis.place(point.y))})"
    drawn = "line" if point.symbol in ("cross", "ring") else "dot"
    shape = element(
        "path", title(point.note), d=_SYMBOLS[point.symbol], transform=place, class_=f"{drawn} {point.tone}"
    )
    return shape


def _path(line: Line, x_axis: Scale, y_axis: Scale) -> str:
    (x, y), *rest = line.points
    said = f"M{number(x_axis.place(x))} {number(y_axis.place(y))}"
    for x, y in rest:
        at, high = number(x_axis.place(x)), number(y_axis.place(y))
        said += f"H{at}V{high}" if line.steps else f"L{at} {high}"
    return said


def _wider(scale: Scale, by: float = 0.0) -> Scale:
    by = by or _AROUND * (scale.high - scale.low)
    return Scale(scale.low - by, scale.high + by, scale.begin, scale.end)


def _frame(
    x_axis: Scale, y_axis: Scale, names: Sequence[str], titles: tuple[str, str], height: float, percent: bool
) -> list[Markup]:
    foot = height - _BOTTOM
    parts = []
    for tick in y_axis.ticks(5):
        y = y_axis.place(tick)
        parts.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", _percent(tick) if percent else short(tick), x=_LEFT - 5, y=y + 4, class_="end"))
    every = -(-len(names) // _MOST_NAMES) or 1
    ticks = [(float(n), name) for n, name in enumerate(names)][::every]
    for tick, name in ticks or [(tick, short(tick)) for tick in x_axis.ticks(6)]:
        parts.append(element("text", name, x=x_axis.place(tick), y=foot + 14, class_="mid"))
    across, up = titles
    parts.append(element("text", across, x=_RIGHT, y=height - 5, class_="end soft"))
    parts.append(element("text", up, x=2, y=11, class_="soft"))
    return parts


def _percent(value: float) -> str:
    return f"{100 * value:+.4g}%" if value else "0%"
