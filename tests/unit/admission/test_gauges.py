from __future__ import annotations

import asyncio

import pytest

from nat_dynamo_plugin.admission.gate import Gate, Place
from nat_dynamo_plugin.admission.gauges import gate_gauges
from nat_dynamo_plugin.admission.limits import UnderWay
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.gauges import read_gauges
from nat_dynamo_plugin.telemetry.record import CallRecord


class Room:
    """A limiter whose room is all that the caches hold."""

    def __init__(self) -> None:
        self.room: float | None = None

    def on_capacity(self, tokens: int, workers: int) -> None:
        self.room = tokens

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        pass


async def test_what_gates_hold_back() -> None:
    places: list[asyncio.Task[Place]] = []
    gates = [Gate(2, model="gated"), Gate(3, model="gated"), Gate(Room(), model="auto")]
    for gate in gates:
        for number in range(4):
            place = gate.place(f"q{number}", body=b'{"prompt": "%s"}' % (b"word " * 80))
            places.append(asyncio.create_task(place.__aenter__()))
    await asyncio.sleep(0)  # each goes in or waits
    gates[2].on_capacity(1000, 1)

    def values(name: str, model: str) -> list[float]:
        return sorted(g.value for g in gate_gauges() if g.name == name and g.labels == {"model": model})

    assert values("active_prefixes", "gated") == [2, 3]
    assert values("waiting_prefixes", "gated") == [1, 2]
    assert values("max_active_prefixes", "gated") == [2, 3]
    assert values("max_active_tokens", "gated") == []
    # Four times the same prompt, of about 100 tokens.
    assert values("active_prefixes", "auto") == [4]
    assert values("active_tokens", "auto") == [pytest.approx(100, abs=2)]
    assert values("max_active_prefixes", "auto") == []
    assert values("max_active_tokens", "auto") == [1000]
    for task in places:
        task.cancel()


def test_the_service_has_gates_shown_in_the_metrics() -> None:
    make_service(DynamoModelConfig(model_name="m"))

    gate = Gate(2, model="shown")
    with gate.place("q", body=b'{"prompt": "a"}'):
        shown = [g for g in read_gauges() if g.labels == {"model": "shown"} and g.name == "active_prefixes"]
    assert [gauge.value for gauge in shown] == [1]
