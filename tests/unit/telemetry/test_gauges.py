from __future__ import annotations

from collections.abc import Iterator

import pytest

from nat_dynamo_plugin.telemetry import gauges
from nat_dynamo_plugin.telemetry.gauges import Gauge, add_gauges, read_gauges


@pytest.fixture(autouse=True)
def no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_sources", {})


def test_a_source_is_read_each_time_and_counts_once() -> None:
    values = iter([1.0, 2.0])

    def source() -> Iterator[Gauge]:
        yield Gauge("waiting", "Who waits.", {"model": "m"}, next(values))

    add_gauges(source)
    add_gauges(source)
    assert [gauge.value for gauge in read_gauges()] == [1.0]
    assert [gauge.value for gauge in read_gauges()] == [2.0]


def test_a_source_that_raises_is_logged_and_the_others_are_read(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterator[Gauge]:
        yield Gauge("half", "Half of it.", {}, 1.0)
        raise RuntimeError("broken source")

    good = Gauge("good", "Good.", {}, 2.0)
    add_gauges(broken)
    add_gauges(lambda: [good])
    assert list(read_gauges()) == [good]
    assert "broken source" in caplog.text
