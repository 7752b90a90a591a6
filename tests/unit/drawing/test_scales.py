"""Axes: places, ticks, and what stands at their ends."""

from __future__ import annotations

import pytest

from nat_dynamo_plugin.drawing.scales import Scale, short


def test_places() -> None:
    scale = Scale(0.0, 10.0, 100.0, 0.0)
    assert [scale.place(value) for value in (0, 2.5, 10)] == [100, 75, 0]
    assert scale.place(-5) == 100 and scale.place(99) == 0


def test_equal_ratios_take_equal_room() -> None:
    scale = Scale(1.0, 100.0, 0.0, 10.0, logarithmic=True)
    assert scale.place(10) == pytest.approx(5)


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "ticks"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 47.0, False, [10, 20, 30, 40]),
        (1.0, 100.0, True, [1, 3, 10, 30, 100]),
        (1.0, 1e6, True, [1, 100, 10_000, 1_000_000]),
        (4.0, 11.0, True, [5, 10]),
        (20.0, 24.0, True, [20, 21, 22, 23, 24]),
    ],
)
def test_ticks_are_round_and_on_the_axis(low: float, high: float, logarithmic: bool, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1, logarithmic).ticks(5) == pytest.approx(ticks)


def test_the_axis_over_values() -> None:
    assert Scale.over([3, 7], 0, 1).low == 3
    assert Scale.over([3, 7], 0, 1, zero=True).low == 0
    assert Scale.over([-3, -7], 0, 1, zero=True).high == 0
    assert Scale.over([5], 0, 10).place(5) == 5
    assert Scale.over([0, 5], 0, 10, logarithmic=True).place(5) == pytest.approx(5)
    assert Scale.over([], 0, 10).high > Scale.over([], 0, 10).low
    assert Scale.over([float("inf"), 1, 2], 0, 1).high == 2


def test_short_labels() -> None:
    assert [short(value) for value in (0.5, 20, 9999, 30_000, 2_500_000, -12_000)] == [
        "0.5", "20", "9999", "30k", "2.5M", "-12k"
    ]  # fmt: skip
