from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nat.builder.context import ContextState
from pydantic import BaseModel

from nat_dynamo_plugin.nat.middleware import DynamoPrefixScope, DynamoPrefixScopeConfig, question_id
from nat_dynamo_plugin.question.endings import on_question_end
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

FIELDS = ["id", "question_id"]


class Item(BaseModel):
    question_id: str
    text: str = ""


class TestQuestionId:
    @pytest.mark.parametrize(
        "value", [{"id": "q7"}, json.dumps({"id": "q7", "x": 1}), Item(question_id="q7"), {"question_id": "q7"}]
    )
    def test_a_field_of_the_input(self, value: Any) -> None:
        assert question_id(value, FIELDS) == "q7"

    def test_the_first_field_wins_and_numbers_do(self) -> None:
        assert question_id({"question_id": "b", "id": 3}, FIELDS) == "3"

    @pytest.mark.parametrize("value", ["What is it?", "{not json", {"id": ""}, {"id": True}, 3, None, ["a"]])
    def test_else_a_short_stable_hash(self, value: Any) -> None:
        first = question_id(value, FIELDS)
        assert len(first) == 12 and int(first, 16) >= 0
        assert question_id(value, FIELDS) == first
        assert question_id([value, "other"], FIELDS) != first


def scope(**config: Any) -> DynamoPrefixScope:
    return DynamoPrefixScope(DynamoPrefixScopeConfig(**config))


async def invoke(middleware: DynamoPrefixScope, value: Any) -> str | None:
    async def workflow(question: Any) -> str | None:
        await asyncio.sleep(0)
        return DynamoPrefixContext.get()

    return await middleware.function_middleware_invoke(value, call_next=workflow, context=None)  # type: ignore[arg-type]


async def test_the_id_names_question_and_run() -> None:
    run = ContextState.get().workflow_run_id.set("0123abcd-ffff-4444-8888-000000000000")
    try:
        assert await invoke(scope(), {"id": "multi_turn_7"}) == "eval-multi_turn_7-0123abcd"
    finally:
        ContextState.get().workflow_run_id.reset(run)
    assert await invoke(scope(label="chat"), {"id": "q"}) == "chat-q"
    assert DynamoPrefixContext.get() is None


async def test_concurrent_questions_have_their_own() -> None:
    middleware = scope()
    ids = await asyncio.gather(*(invoke(middleware, {"id": i}) for i in range(100)))
    assert ids == [f"eval-{i}" for i in range(100)]


async def test_a_stream_is_inside_the_scope_and_its_consumer_is_not() -> None:
    async def workflow(question: Any) -> AsyncIterator[str | None]:
        for _ in range(3):
            yield DynamoPrefixContext.get()
            await asyncio.sleep(0)

    stream = scope().function_middleware_stream({"id": "q"}, call_next=workflow, context=None)  # type: ignore[arg-type]
    assert [(inside, DynamoPrefixContext.get()) async for inside in stream] == [("eval-q", None)] * 3


class Ended(list[str]):
    """The ids of the questions that ended since it was made."""

    def __init__(self) -> None:
        super().__init__()
        on_question_end(self)

    __hash__ = object.__hash__  # type: ignore[assignment]

    def question_ended(self, prefix_id: str) -> None:
        self.append(prefix_id)


async def test_a_stream_ends_its_question_once_whoever_closes_it() -> None:
    seen: list[str | None] = []

    async def workflow(question: Any) -> AsyncIterator[int]:
        try:
            for step in range(3):
                yield step
        finally:
            seen.append(DynamoPrefixContext.get())

    for closer in ("itself", "its consumer", "another task"):
        ended = Ended()
        stream = scope().function_middleware_stream({"id": "q"}, call_next=workflow, context=None)  # type: ignore[arg-type]
        if closer == "itself":
            assert [step async for step in stream] == [0, 1, 2]
        elif closer == "its consumer":
            assert await anext(stream) == 0
            await stream.aclose()  # type: ignore[attr-defined]
        else:
            assert await asyncio.create_task(anext(stream)) == 0  # type: ignore[arg-type]
            assert ended == []
            await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
        assert ended == ["eval-q"], closer
        assert DynamoPrefixContext.get() is None
    assert seen == ["eval-q"] * 3, "what the workflow does in the end is part of its question"
