from __future__ import annotations

import asyncio

import pytest

from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.admission.shared import GateSettings, SharedGates

ORIGIN = "http://server:8000"


def test_two_llms_on_one_model_share_a_gate(caplog: pytest.LogCaptureFixture) -> None:
    gates = SharedGates()
    one, two = (gates.get(ORIGIN, "m", GateSettings(8)) for _ in range(2))
    assert one is two
    assert not caplog.records
    assert gates.get(ORIGIN, "other", GateSettings(8)) is not one
    assert gates.get("http://server:8001", "m", GateSettings(8)) is not one


@pytest.mark.parametrize(
    ("first", "second", "limit"),
    [
        (GateSettings(8, 30.0, 10.0), GateSettings(4, 20.0, 300.0), 4),
        (GateSettings(4, 20.0, 300.0), GateSettings(8, 30.0, 10.0), 4),
        (GateSettings("auto", 20.0, 10.0), GateSettings(9, 30.0, 300.0), 9),
        (GateSettings(9, 20.0, 10.0), GateSettings("auto", 30.0, 300.0), 9),
    ],
)
def test_the_stricter_settings_hold_and_the_log_says_so(
    first: GateSettings, second: GateSettings, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    gates = SharedGates()
    gate = gates.get(ORIGIN, "m", first)
    assert gates.get(ORIGIN, "m", second) is gate
    assert (gate.limit, gate.room, gate.adapts) == (limit, None, False)
    assert (gate._queue.idle_s, gate._queue.max_wait_s) == (20.0, 10.0)
    (record,) = caplog.records
    message = record.getMessage()
    assert ORIGIN in message and f"({limit}, 20.0, 10.0) holds" in message
    # A third one is compared with what holds.
    gates.get(ORIGIN, "m", GateSettings(limit, 20.0, 10.0))
    assert len(caplog.records) == 1


def test_auto_stays_auto(caplog: pytest.LogCaptureFixture) -> None:
    gates = SharedGates()
    gate = gates.get(ORIGIN, "m", GateSettings("auto", 30.0))
    gates.get(ORIGIN, "m", GateSettings("auto", 20.0))
    assert gate.adapts and gate.limit is None
    assert gate._queue.idle_s == 20.0
    assert len(caplog.records) == 1


def test_a_gate_lives_as_long_as_somebody_keeps_it() -> None:
    gates = SharedGates()
    gates.get(ORIGIN, "m", GateSettings(1)).place("q").__enter__()
    gate = gates.get(ORIGIN, "m", GateSettings(2))
    assert (gate.limit, gate.under_way) == (2, 0)


async def test_a_changed_gate_lets_in_whoever_may_go_now() -> None:
    gate = Gate(1)
    await gate.place("a").__aenter__()
    task = asyncio.create_task(gate.place("b").__aenter__())
    while not gate.waiting:  # noqa: ASYNC110 - the task's first step
        await asyncio.sleep(0)
    gate.change(2, 30.0, 300.0)
    await asyncio.wait_for(task, 30)
    assert gate.under_way == 2
