from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from nat.builder.context import Context, ContextState
from nat.utils.reactive.subject import Subject

from nat_dynamo_plugin.question import endings
from nat_dynamo_plugin.question.endings import Questions, on_question_end
from nat_dynamo_plugin.question.identity import CallIdentity, current_identity, manual_sensitivity
from nat_dynamo_plugin.question.ids import PrefixTemplate, conversation_prefix
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext

STATE = ContextState.get()
TEMPLATE = PrefixTemplate("t-{uuid}")


@contextmanager
def state(**values: Any) -> Iterator[None]:
    """NAT's context with these variables; a run has an event stream of its own, as NAT's runs have."""
    if "workflow_run_id" in values:
        values = {"event_stream": Subject(), **values}
    tokens = [(getattr(STATE, name), getattr(STATE, name).set(value)) for name, value in values.items()]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


@contextmanager
def function(name: str) -> Iterator[None]:
    with Context.get().push_active_function(name, input_data=None):
        yield


class TestPrefix:
    def test_the_client_has_one_id(self) -> None:
        template = PrefixTemplate("nat-dynamo-{uuid}")
        first, second = current_identity(template), current_identity(template)
        assert first.prefix_id == second.prefix_id == f"nat-dynamo-{template.client_uuid}"
        assert PrefixTemplate("nat-dynamo-{uuid}").client_uuid != template.client_uuid

    def test_order_of_sources(self) -> None:
        with state(workflow_run_id="run-1"):
            assert current_identity(TEMPLATE).prefix_id == "run-1"
            with state(conversation_id="chat-1"):
                assert current_identity(TEMPLATE).prefix_id == conversation_prefix("chat-1")
                with DynamoPrefixContext.scope("mine"):
                    assert current_identity(TEMPLATE).prefix_id == "mine"

    def test_a_conversation_travels_hashed_unless_somebody_says_otherwise(self) -> None:
        with state(conversation_id="anna@example.org", workflow_run_id="r"):
            identity = current_identity(TEMPLATE)
            assert not [text for text in (identity.prefix_id, identity.session_id) if "anna" in text]
            assert current_identity(PrefixTemplate("c-{conversation}")).prefix_id == "c-anna@example.org"
            with DynamoPrefixContext.scope("q"):
                assert "anna" not in "".join(current_identity(TEMPLATE).around)

    def test_a_template_with_the_run_shapes_the_id(self) -> None:
        with state(workflow_run_id="r", function_path_stack=["wf", "writer"]):
            assert current_identity(PrefixTemplate("exp7-{run}-{function}")).prefix_id == "exp7-r-writer"

    def test_a_forked_child_has_an_id_of_its_own(self) -> None:
        template = PrefixTemplate("t-{uuid}")
        parents = current_identity(template).prefix_id
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, current_identity(template).prefix_id.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        childs = os.read(reader, 1000).decode()
        os.close(reader)
        assert childs.startswith("t-") and childs != parents == current_identity(template).prefix_id

    def test_what_is_around_a_question(self) -> None:
        with state(workflow_run_id="run-1"):
            assert current_identity(TEMPLATE).around == ()
            with DynamoPrefixContext.scope("a"), DynamoPrefixContext.scope("b"), DynamoPrefixContext.scope("c"):
                assert current_identity(TEMPLATE).around == ("b", "a", "run-1")
                assert current_identity(PrefixTemplate("x-{run}")).around == ("b", "a", "x-run-1")
        with DynamoPrefixContext.scope("alone"):
            assert current_identity(TEMPLATE).around == ()


class TestSessions:
    def test_the_function_that_opens_a_scope_bears_its_id(self) -> None:
        with state(function_path_stack=["wf", "agent"]), DynamoPrefixContext.scope("mine"):
            assert current_identity(TEMPLATE).session_id == "mine"
            with state(function_path_stack=["wf", "agent", "helper"]):
                identity = current_identity(TEMPLATE)
                assert (identity.session_id, identity.parent_session_id) == ("mine/helper", "mine")

    async def test_parallel_runs_of_one_agent_are_sessions_of_their_own(self) -> None:
        async def research() -> list[CallIdentity]:
            with function("researcher"):
                found = []
                for _ in range(3):
                    found.append(current_identity(TEMPLATE))
                    await asyncio.sleep(0)
                with function("summary"):
                    found.append(current_identity(TEMPLATE))
                return found

        with state(workflow_run_id="run-1"), function("<workflow>"):
            assert current_identity(TEMPLATE).session_id == "run-1"
            runs = await asyncio.gather(*(research() for _ in range(4)))
        assert len({run[0].session_id for run in runs}) == 4
        for run in runs:
            assert run[0] == run[1] == run[2], "the calls of one run are one session"
            assert run[0].session_id.startswith("run-1/researcher#") and run[0].parent_session_id == "run-1"
            assert run[3].parent_session_id == run[0].session_id
            assert run[3].session_id.startswith("run-1/researcher/summary#")

    def test_a_second_run_after_the_first_is_a_session_of_its_own(self) -> None:
        with function("<workflow>"), DynamoPrefixContext.scope("q"):
            seen = []
            for _ in range(2):
                with function("researcher"):
                    seen.append(current_identity(TEMPLATE).session_id)
        assert len(set(seen)) == 2


def test_a_manual_sensitivity() -> None:
    assert manual_sensitivity() is None
    with Context.get().push_latency_sensitivity(5), Context.get().push_latency_sensitivity(4):
        assert manual_sensitivity() == 5


class TestRuns:
    """The end of a workflow run, which NAT's event stream tells."""

    def test_a_run_is_watched_once_and_ends_its_questions_once(self) -> None:
        ended, stream = Ended(), Subject()
        with state(workflow_run_id="run-a", event_stream=stream):
            for _ in range(3):
                current_identity(TEMPLATE)
            for number in range(50):
                with DynamoPrefixContext.scope(f"ticket-{number}"):
                    current_identity(TEMPLATE)
            current_identity(PrefixTemplate("x-{run}"))
            assert len(stream._observers) == 1
            assert ended == [f"ticket-{number}" for number in range(50)]
            ended.clear()
            stream.on_complete()
            stream.on_complete()
        assert ended == ["run-a", "x-run-a"]

    def test_a_scope_is_stronger_than_the_end_of_a_run_inside_it(self) -> None:
        ended, stream = Ended(), Subject()
        with DynamoPrefixContext.scope("q"):
            with state(workflow_run_id="run-b", event_stream=stream):
                current_identity(TEMPLATE)
                stream.on_complete()
            assert ended == []
        assert ended == ["q"]

    async def test_a_run_ends_what_was_set_inside_it(self) -> None:
        ended, stream = Ended(), Subject()
        with state(workflow_run_id="run-c", event_stream=stream):
            DynamoPrefixContext.set("mine")
            current_identity(TEMPLATE)
            stream.on_complete()
            assert ended == ["mine"]
            DynamoPrefixContext.clear()

    async def test_what_was_set_and_cleared_in_a_run_has_ended_already(self) -> None:
        ended, stream = Ended(), Subject()
        with state(workflow_run_id="run-d", event_stream=stream):
            DynamoPrefixContext.set("mine")
            current_identity(TEMPLATE)
            DynamoPrefixContext.clear()
            assert ended == ["mine"]
            stream.on_complete()
        assert ended == ["mine"]

    def test_two_runs_of_a_conversation_at_once_end_with_the_later(self) -> None:
        ended, one, two = Ended(), Subject(), Subject()
        with state(conversation_id="chat"):
            for run, stream in (("run-e", one), ("run-f", two)):
                with state(workflow_run_id=run, event_stream=stream):
                    current_identity(TEMPLATE)
        one.on_complete()
        assert ended == []
        two.on_complete()
        assert ended == [conversation_prefix("chat")]

    def test_a_run_in_a_run_ends_its_own_questions_only(self) -> None:
        ended, outer, inner = Ended(), Subject(), Subject()
        with state(workflow_run_id="run-g", event_stream=outer):  # NAT gives the inner one the outer's id
            current_identity(TEMPLATE)
            with state(event_stream=inner):
                current_identity(TEMPLATE)
                current_identity(PrefixTemplate("inner-{run}"))
                inner.on_complete()
            assert ended == ["inner-run-g"]
            outer.on_complete()
        assert ended == ["inner-run-g", "run-g"]

    def test_a_cancelled_run_is_over_when_its_stream_is_gone(self) -> None:
        questions, ended = Questions(), Ended(listen=False)
        questions.listen(ended)
        stream = Subject()
        with state(event_stream=stream):
            questions.watch("q-1")
        del stream
        gc.collect()
        questions.hold("q-2", self)
        assert ended == ["q-1"]
        assert not questions._runs and list(questions._held) == ["q-2"]

    def test_the_questions_of_a_run_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(endings, "MAX_IDS_A_RUN", 2)
        questions, ended = Questions(), Ended(listen=False)
        questions.listen(ended)
        with state(event_stream=Subject()):
            for name in ("a", "b", "a", "c"):
                questions.watch(name)
        assert ended == ["a"], "it was the first to come"


class Ended(list[str]):
    """The ids of the questions that ended since it was made."""

    def __init__(self, *, listen: bool = True) -> None:
        super().__init__()
        if listen:
            on_question_end(self)

    __hash__ = object.__hash__  # type: ignore[assignment]

    def question_ended(self, prefix_id: str) -> None:
        self.append(prefix_id)
