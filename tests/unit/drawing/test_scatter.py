"""Points and lines on two axes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from nat_dynamo_plugin.drawing.charts import Bar, shares
from nat_dynamo_plugin.drawing.scatter import Line, Point, scatter


def read(drawn: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawn))


def place(one: ElementTree.Element) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"[\d.]+", one.get("transform") or "")))


def points(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [one for one in root.iter("path") if one.get("transform")]


def test_points_stand_right_and_up_where_they_are_more() -> None:
    root = read(scatter([Point(1, 10, note="low"), Point(3, 30, "s2", "cross")], across="n", up="ms", label="x"))
    low, high = points(root)
    assert place(low)[0] < place(high)[0] and place(low)[1] > place(high)[1]
    assert (low.get("class"), high.get("class")) == ("dot s1", "line s2")
    assert [one.text for one in root.iter("title")] == ["low"]
    texts = [one.text for one in root.iter("text")]
    assert {"n", "ms", "10", "20", "30", "1", "2", "3"} <= set(texts)


def test_all_points_are_within_the_frame() -> None:
    root = read(scatter([Point(5, 5)], across="", up="", label="x", level=-100.0))
    ((x, y),) = map(place, points(root))
    assert 46 <= x <= 330 and 20 <= y <= 194
    (level,) = (line for line in root.iter("line") if line.get("class") == "zero")
    assert 20 <= float(level.get("y1") or 0) <= 194


def test_names_in_place_of_numbers() -> None:
    root = read(scatter([Point(0, 1), Point(1, 2)], across="", up="", label="x", names=["a", "<b>"]))
    named = {one.text: float(one.get("x") or 0) for one in root.iter("text")}
    assert [place(one)[0] for one in points(root)] == [named["a"], named["<b>"]]


def test_a_line_in_steps_and_one_without() -> None:
    given = [(0.0, 0.0), (1.0, 2.0)]
    root = read(
        scatter([Point(0, 0), Point(1, 2)], across="", up="", label="x", lines=[Line(given), Line(given, steps=True)])
    )
    first, last = map(place, points(root))
    short = [f"{value:.1f}".removesuffix(".0") for value in (*first, *last)]
    plain, steps = (one.get("d") for one in root.iter("path") if one.get("class") == "line s8")
    assert plain == "M{} {}L{} {}".format(*short) and steps == "M{} {}H{}V{}".format(*short)


def test_shares_have_their_sign() -> None:
    root = read(scatter([Point(0, -0.5), Point(1, 0.5)], across="", up="", label="x", percent=True))
    assert {"-50%", "0%", "+50%"} <= {one.text for one in root.iter("text")}


def test_lying_bars() -> None:
    root = read(shares([Bar("a", 0.5, "half"), Bar("b", 1.2)], label="x"))
    assert [float(bar.get("width") or 0) for bar in root.iter("rect")] == [140, 280]
    assert [one.text for one in root.iter("text")] == ["a", "50%", "b", "120%"]
