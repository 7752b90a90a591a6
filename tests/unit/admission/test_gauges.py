from __future__ import annotations

import pytest

from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.admission.gauges import gate_gauges
from nat_dynamo_plugin.admission.limits import FILL, AdaptiveLimit


def test_what_gates_hold_back() -> None:
    gates = [Gate(2, model="gated"), Gate(3, model="gated"), Gate(AdaptiveLimit(), model="auto")]
    for gate in gates:
        for number in range(4):
            gate.begin(f"q{number}", body=b'{"prompt": "%s"}' % (b"word " * 80))
    gates[2].on_capacity(1000)

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
    assert values("max_active_tokens", "auto") == [FILL * 1000]


def test_the_service_has_gates_shown_in_the_metrics() -> None:
    import nat_dynamo_plugin.service  # noqa: F401
    from nat_dynamo_plugin.telemetry.gauges import read_gauges

    gate = Gate(2, model="shown")
    gate.begin("q", body=b'{"prompt": "a"}')
    assert [g.value for g in read_gauges() if g.labels == {"model": "shown"} and g.name == "active_prefixes"] == [1]
