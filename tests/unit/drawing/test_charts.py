"""Charts: well-formed, within their frame, with the figures in their tooltips."""

from __future__ import annotations

from xml.etree import ElementTree

from markupsafe import Markup

from nat_dynamo_plugin.drawing.charts import WIDTH, Bar, Range, Series, columns, cumulative, ranges


def read(drawn: Markup) -> ElementTree.Element:
    root = ElementTree.fromstring(str(drawn))
    assert root.get("viewBox", "").startswith(f"0 0 {WIDTH:.0f} ")
    return root


def titles(root: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in root.iter("title")]


def test_a_line_rises_from_the_least_to_the_largest_value() -> None:
    root = read(cumulative([Series("a", [1, 2, 3, 4, 100]), Series("none", [])], unit="ms", label="times"))
    lines = list(root.iter("polyline"))
    assert len(lines) == 1 and lines[0].get("class") == "line s1"
    points = [tuple(map(float, pair.split(","))) for pair in (lines[0].get("points") or "").split()]
    assert points == sorted(points, key=lambda one: (one[0], -one[1]))
    assert (points[0][0], points[-1]) == (38, (330, 10))
    assert titles(root)[0] == "a: p50 3 ms, p95 80.8 ms, of 5"
    p50 = next(root.iter("circle"))
    assert float(p50.get("cy") or 0) == 84  # the middle of 10 to 158


def test_values_of_zero_have_a_place_on_a_logarithmic_axis() -> None:
    root = read(cumulative([Series("a", [0, 0, 10, 20])], unit="ms", label="times"))
    assert (next(root.iter("polyline")).get("points") or "").startswith("38,")


def test_bars_are_as_high_as_their_values() -> None:
    root = read(
        columns([Bar("1", 0.5, "half"), Bar("2", 1.0), Bar("3", 0.0)], unit="", under="n", label="x", share=True)
    )
    bars = list(root.iter("rect"))
    assert [float(bar.get("height") or 0) for bar in bars] == [74, 148, 0.5]
    assert titles(root) == ["half"]


def test_not_every_bar_has_a_label_where_there_are_many() -> None:
    root = read(columns([Bar(f"b{n}", n) for n in range(40)], unit="ms", under="", label="x"))
    labels = [text.text for text in root.iter("text") if (text.text or "").startswith("b")]
    assert labels[:2] == ["b0", "b4"] and len(list(root.iter("rect"))) == 40


def test_an_interval_stands_on_its_side_of_zero() -> None:
    rows = [Range("up", 0.2, 0.1, 0.3, "+20 %", "s3"), Range("down", -0.2, -0.3, -0.1, "-20 %", "s2")]
    root = read(ranges(rows, unit="", label="changes", percent=True))
    zero = float(next(line for line in root.iter("line") if line.get("class") == "zero").get("x1") or 0)
    up, down = (line for line in root.iter("line") if "line" in (line.get("class") or ""))
    assert zero < float(up.get("x1") or 0) < float(up.get("x2") or 0)
    assert float(down.get("x1") or 0) < float(down.get("x2") or 0) < zero
    assert "up: +20 %" in titles(root)
    assert "+20 %" in [text.text for text in root.iter("text")]
