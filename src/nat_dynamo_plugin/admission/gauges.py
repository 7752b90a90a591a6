"""What gates hold back now, for metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nat_dynamo_plugin.admission.gate import Gate, gates
from nat_dynamo_plugin.telemetry.gauges import Gauge

_GAUGES: tuple[tuple[str, str, Callable[[Gate], float | None]], ...] = (
    ("active_prefixes", "Questions under way.", lambda gate: gate.under_way),
    ("waiting_prefixes", "Questions that wait at the gate.", lambda gate: gate.waiting),
    (
        "active_tokens",
        "Tokens of the prompts of questions under way, what they share counted once.",
        lambda gate: gate.tokens,
    ),
    ("max_active_prefixes", "Questions that may be under way, where a number bounds them.", lambda gate: gate.limit),
    ("max_active_tokens", "Tokens that their prompts may have, where `auto` has found that.", lambda gate: gate.room),
)


def gate_gauges() -> Iterator[Gauge]:
    """The gauges of every gate in use, labelled by its model. A bound that a gate has not is left out."""
    for name, text, read in _GAUGES:
        for gate in gates():
            value = read(gate)
            if value is not None:
                yield Gauge(name, text, {"model": gate.model}, value)


def described() -> Iterator[Gauge]:
    """All gauges that there can be, without values."""
    for name, text, _ in _GAUGES:
        yield Gauge(name, text, {"model": ""}, 0.0)
