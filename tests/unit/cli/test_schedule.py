"""From a recording to what is to be played."""

from __future__ import annotations

import pytest

from nat_dynamo_plugin.cli.replay.schedule import PlannedCall, plan
from nat_dynamo_plugin.recording.rows import RecordedCall


def row(question: str, started_s: float, took_s: float) -> RecordedCall:
    return RecordedCall(question, started_s, took_s, [])


ROWS = [
    row("b", 107.0, 1.0),
    row("a", 100.0, 2.0),
    row("a", 105.0, 1.0),  # 3 s in a tool
    row("a", 105.5, 4.0),  # at the same time
    row("a", 110.0, 1.0),  # half a second after both
]


def test_calls_wait_for_those_that_had_ended_and_for_their_pause() -> None:
    first, second = plan(ROWS)
    assert (first.name, first.at_s, second.name, second.at_s) == ("a", 0.0, "b", 7.0)
    assert first.calls == (
        PlannedCall(1, (), 0.0),
        PlannedCall(2, (0,), 3.0),
        PlannedCall(3, (0,), 3.5),
        PlannedCall(4, (0, 1, 2), 0.5),
    )
    assert second.calls == (PlannedCall(0, (), 0.0),)


def test_at_a_rate_of_ones_own_questions_keep_their_order_and_come_at_random() -> None:
    rows = [row(f"q{k:03d}", 100.0 + k, 1.0) for k in range(400)]
    planned = plan(rows, rate=5.0, seed=1)
    assert [one.name for one in planned] == [f"q{k:03d}" for k in range(400)]
    assert planned[0].at_s == 0.0 and planned[-1].at_s == pytest.approx(80.0, rel=0.2)
    assert plan(rows, rate=5.0, seed=1) == planned != plan(rows, rate=5.0, seed=2)
    assert [call.gap_s for one in planned for call in one.calls] == [0.0] * 400
