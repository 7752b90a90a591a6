"""Drives admission and learning without any HTTP."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from types import SimpleNamespace
from typing import Any

from nat_dynamo_plugin.layers.admission import AdmissionLayer
from nat_dynamo_plugin.layers.learning import LearningLayer
from nat_dynamo_plugin.plan.serving import ServingPlan, make_plan
from nat_dynamo_plugin.question.hints import DynamoHints, PrefixHints, resolve_hints
from nat_dynamo_plugin.question.identity import current_identity
from nat_dynamo_plugin.question.ids import PrefixTemplate
from nat_dynamo_plugin.telemetry.record import CallRecord

TEMPLATE = PrefixTemplate("{uuid}")


class FakeCall:
    """What these layers use of a `Call`."""

    def __init__(self, plan: ServingPlan | None, body: bytes | None = None) -> None:
        self.url = "http://server/v1/chat/completions"
        self.body = SimpleNamespace(raw=body)
        self.record = CallRecord(started_at=1000.0)
        self.turn = None if plan is None else SimpleNamespace(plan=plan, identity=plan.identity)
        self._ends: list[Callable[[CallRecord], None]] = []

    def on_end(self, callback: Callable[[CallRecord], None]) -> None:
        self._ends.append(callback)

    def finish(self) -> None:
        for callback in reversed(self._ends):
            callback(self.record)


class Answer:
    """What the innermost layer yields: the answer, once `hold` is set."""

    def __init__(self, client: LayeredClient) -> None:
        self.client = client


class LayeredClient:
    """A client whose calls go through a learning layer, an admission layer, or both, to a server in memory.

    Attributes:
        hold: answers wait until it is set.
        plans: those of the calls that have reached the server.
        records: those of the calls that are over.
    """

    def __init__(
        self,
        learning: LearningLayer | None = None,
        admission: AdmissionLayer | None = None,
        hints: PrefixHints | None = None,
    ) -> None:
        self.learning = learning
        self.admission = admission
        self.hints = hints or PrefixHints()
        self.hold: asyncio.Event | None = None
        self.plans: list[ServingPlan] = []
        self.records: list[CallRecord] = []
        self.fails: BaseException | None = None
        self._counts: Counter[str] = Counter()

    @property
    def prefixes(self) -> list[str]:
        return [plan.identity.prefix_id for plan in self.plans]

    def _plan(self) -> ServingPlan:
        identity, scope = current_identity(TEMPLATE), DynamoHints.current()
        index = self._counts[identity.session_id]
        self._counts[identity.session_id] += 1
        hints = resolve_hints(config=self.hints, call_index=index, scope=scope)
        if self.learning is not None:
            hints = self.learning.expected(identity, None if scope is None else scope.kind, hints, index)
        crowded = self.admission is not None and self.admission.is_crowded()
        return make_plan(identity, hints, index, crowded=crowded)

    def _flow(self, call: Any) -> Generator[Any, Any, Any]:
        def answer(call: FakeCall) -> Generator[Any, Any, Any]:
            assert call.turn is not None
            self.plans.append(call.turn.plan)
            yield Answer(self)
            if self.fails is not None:
                raise self.fails
            record = call.record
            record.status, record.prompt_tokens, record.completion_tokens = 200, 100, 40
            record.client_total_ms = 10.0
            return "reply"

        send: Callable[[Any], Any] = answer
        for layer in (self.admission, self.learning):
            if layer is not None:
                send = partial(layer.flow, send=send)
        return send(call)

    async def ask(self) -> FakeCall:
        """A call of an async client, answered and over."""
        call = FakeCall(self._plan())
        flow = self._flow(call)
        try:
            operation, result = next(flow), None
            while True:
                try:
                    if not isinstance(operation, Answer):
                        result = await operation.manager.__aenter__()
                    elif self.hold is not None:
                        await self.hold.wait()
                except BaseException as error:
                    operation = flow.throw(error)
                else:
                    operation = flow.send(result)
        except StopIteration as stop:
            assert stop.value == "reply"
            return call
        finally:
            call.finish()
            self.records.append(call.record)

    def ask_sync(self) -> FakeCall:
        """A call of a sync client, answered and over."""
        call = FakeCall(self._plan())
        flow = self._flow(call)
        try:
            operation = next(flow)
            while True:
                result = None if isinstance(operation, Answer) else operation.manager.__enter__()
                operation = flow.send(result)
        except StopIteration:
            return call
        finally:
            call.finish()
            self.records.append(call.record)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
