from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.cost.gpu import BusyTime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_call_alone_pays_for_its_time_and_idle_time_is_on_nobodys_bill() -> None:
    clock = Clock()
    busy = BusyTime(3600.0, clock)
    clock.now += 50
    first = busy.begin()
    clock.now += 2
    assert busy.end(first) == pytest.approx(2.0)
    clock.now += 50
    second = busy.begin()
    clock.now += 0.5
    assert busy.end(second) == pytest.approx(0.5)  # a cached prompt, answered sooner


def test_calls_at_once_share() -> None:
    clock = Clock()
    busy = BusyTime(3600.0, clock)
    first = busy.begin()
    clock.now += 1
    second = busy.begin()
    clock.now += 2
    assert busy.end(first) == pytest.approx(1 + 2 / 2)
    clock.now += 3
    assert busy.end(second) == pytest.approx(2 / 2 + 3)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5)), max_size=40), st.floats(0.1, 100))
def test_the_shares_add_up_to_the_price_of_the_busy_time(steps: list[tuple[float, int]], hourly: float) -> None:
    clock = Clock()
    busy = BusyTime(hourly, clock)
    open_calls: list[float] = []
    paid = busy_s = 0.0
    for seconds, what in steps:
        clock.now += seconds
        busy_s += seconds if open_calls else 0.0
        if what > 2 and open_calls:
            paid += busy.end(open_calls.pop(what % len(open_calls)))
        else:
            open_calls.append(busy.begin())
    paid += sum(busy.end(began) for began in open_calls)
    assert paid == pytest.approx(busy_s * hourly / 3600, abs=1e-9)
