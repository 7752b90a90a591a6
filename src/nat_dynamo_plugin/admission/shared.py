"""One gate for all LLMs of a config that are one model of one server."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from nat_dynamo_plugin.admission.gate import Gate
from nat_dynamo_plugin.admission.goodput import GoodputLimit
from nat_dynamo_plugin.admission.queue import IDLE_S, MAX_WAIT_S
from nat_dynamo_plugin.locks import Lock

logger = logging.getLogger(__name__)


class GateSettings(NamedTuple):
    """What a gate goes by.

    Attributes:
        limit: questions under way at once, 1 or more; `auto` for as many as the KV caches hold the prompts of,
            where that pays.
        idle_s: see `IDLE_S`.
        max_wait_s: see `MAX_WAIT_S`.
    """

    limit: int | Literal["auto"]
    idle_s: float = IDLE_S
    max_wait_s: float = MAX_WAIT_S


class SharedGates:
    """Gates by server and model, each as long as somebody keeps it.

    If two LLMs ask for one gate with different settings, the stricter ones hold for both, and the log says so: the
    smaller number, a number rather than `auto`, the shorter times.
    """

    def __init__(self) -> None:
        self._gates: WeakValueDictionary[tuple[str, str], Gate] = WeakValueDictionary()
        self._settings: WeakKeyDictionary[Gate, GateSettings] = WeakKeyDictionary()
        self._lock = Lock()

    def get(self, origin: str, model: str, settings: GateSettings) -> Gate:
        """The gate of a model at a server.

        Args:
            origin: scheme, host and port, without a user's name or password; it is logged.
            model: the model's name there.
            settings: what the gate is to go by.
        """
        with self._lock:
            gate = self._gates.get((origin, model))
            if gate is None:
                bound = GoodputLimit() if settings.limit == "auto" else settings.limit
                gate = Gate(bound, model=model, idle_s=settings.idle_s, max_wait_s=settings.max_wait_s)
                self._gates[origin, model] = gate
                self._settings[gate] = settings
                return gate
            held = self._settings[gate]
            self._settings[gate] = strictest = _strictest(held, settings)
        if settings != held:
            logger.warning(
                "Two LLMs are the model %s at %s, so they share one gate, but ask for different ones: "
                "(limit, idle, longest wait) = %s and %s; %s holds for both",
                model,
                origin,
                *(tuple(each) for each in (held, settings, strictest)),
            )
            limit = None if strictest.limit == "auto" else strictest.limit
            gate.change(limit, strictest.idle_s, strictest.max_wait_s)
        return gate


def _strictest(one: GateSettings, two: GateSettings) -> GateSettings:
    numbers = [limit for limit in (one.limit, two.limit) if limit != "auto"]
    return GateSettings(
        min(numbers) if numbers else "auto", min(one.idle_s, two.idle_s), min(one.max_wait_s, two.max_wait_s)
    )
