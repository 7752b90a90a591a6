"""NAT's sessions, for an evaluation in which a question that fails is a failed question and not the end of all."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from nat_dynamo_plugin.evaluators.failures import FailedAnswer
from nat_dynamo_plugin.nat.journal import digest
from nat_dynamo_plugin.question.repetition import repetition_scope
from nat_dynamo_plugin.telemetry.record import RECORD_KEY, STEP_NAME

logger = logging.getLogger(__name__)


class TakesCalls(Protocol):
    """Is told of each LLM call of a question as it ends."""

    def on_call(self, asked: Any, record: dict[str, Any]) -> None:
        """Args:
        asked: the question's input.
        record: the call's, as plain data.
        """


class _Around:
    """Something of NAT's, of which a subclass does some things in another way."""

    def __init__(self, inner: Any, calls: TakesCalls | None) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class NeverRaises(_Around):
    """NAT's `SessionManager`, whose workflows end with a `FailedAnswer` where they would raise.

    The repetitions of a question are numbered, so that a response cache does not answer one with another.
    """

    def __init__(self, inner: Any, calls: TakesCalls | None) -> None:
        super().__init__(inner, calls)
        self._runs: Counter[str] = Counter()

    @asynccontextmanager
    async def session(self, **kwargs: Any) -> AsyncIterator[_Session]:
        """NAT's session."""
        async with self._inner.session(**kwargs) as session:
            yield _Session(session, self._calls, self._runs)


class _Session(_Around):
    def __init__(self, session: Any, calls: TakesCalls | None, runs: Counter[str]) -> None:
        super().__init__(session, calls)
        self._runs = runs

    @asynccontextmanager
    async def run(self, message: Any, **kwargs: Any) -> AsyncIterator[_Runner]:
        asked = digest(message)
        number = self._runs[asked]
        self._runs[asked] += 1
        with repetition_scope(number):
            async with self._inner.run(message, **kwargs) as runner:
                yield _Runner(runner, message, self._calls)


class _Failed(BaseModel):
    """NAT makes an output of a model by its `model_dump_json`, and of anything else by the run's JSON path."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    answer: FailedAnswer

    def model_dump_json(self, **_: Any) -> str:
        return self.answer


class _Runner(_Around):
    def __init__(self, runner: Any, message: Any, calls: TakesCalls | None) -> None:
        super().__init__(runner, calls)
        self._message = message

    async def result(self, *args: Any, **kwargs: Any) -> Any:
        if self._calls is not None:
            self._inner.context.intermediate_step_manager.subscribe(on_next=self._on_step)
        try:
            return await self._inner.result(*args, **kwargs)
        except Exception as error:
            logger.exception("A question failed; the others go on")
            return _Failed(answer=FailedAnswer.of(error))

    def convert(self, value: Any, to_type: Any) -> Any:
        return value if isinstance(value, _Failed) else self._inner.convert(value, to_type)

    def _on_step(self, step: Any) -> None:
        payload = step.payload
        if payload.name == STEP_NAME and payload.event_type == "CUSTOM_END" and self._calls is not None:
            provided = payload.metadata.provided_metadata if payload.metadata else None
            if isinstance(provided, dict) and isinstance(provided.get(RECORD_KEY), dict):
                self._calls.on_call(self._message, provided[RECORD_KEY])
