from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.builder.context import ContextState

from nat_dynamo_plugin.question.prefix import (
    MAX_ID_BYTES,
    DynamoPrefixContext,
    PrefixTemplate,
    check_template,
    current_identity,
    sessions_of,
    wire_id,
)

STATE = ContextState.get()


class TestScope:
    def test_nested_scopes_restore(self) -> None:
        assert DynamoPrefixContext.get() is None
        with DynamoPrefixContext.scope("outer"):
            with DynamoPrefixContext.scope("inner"):
                assert DynamoPrefixContext.get() == "inner"
            assert DynamoPrefixContext.get() == "outer"
        assert DynamoPrefixContext.get() is None
        assert not DynamoPrefixContext.is_set()

    def test_an_exception_restores(self) -> None:
        with DynamoPrefixContext.scope("outer"):
            with pytest.raises(KeyError), DynamoPrefixContext.scope("inner"):
                raise KeyError
            assert DynamoPrefixContext.get() == "outer"

    async def test_set_and_clear(self) -> None:
        DynamoPrefixContext.set("a")
        assert DynamoPrefixContext.get() == "a"
        DynamoPrefixContext.clear()
        assert DynamoPrefixContext.get() is None

    @pytest.mark.parametrize("bad", ["", "  ", None, 3])
    def test_an_empty_id_is_refused(self, bad: object) -> None:
        with pytest.raises(ValueError, match="prefix_id="), DynamoPrefixContext.scope(bad):  # type: ignore[arg-type]
            pass

    async def test_tasks_see_their_own(self) -> None:
        async def question(name: str) -> list[str | None]:
            with DynamoPrefixContext.scope(name):
                await asyncio.sleep(0)
                seen = [DynamoPrefixContext.get()]
                seen += await asyncio.gather(inner(), inner())
                seen.append(await asyncio.to_thread(DynamoPrefixContext.get))
                return seen

        async def inner() -> str | None:
            await asyncio.sleep(0)
            return DynamoPrefixContext.get()

        results = await asyncio.gather(*(question(f"q{i}") for i in range(50)))
        assert results == [[f"q{i}"] * 4 for i in range(50)]
        assert DynamoPrefixContext.get() is None

    def test_a_reused_pool_thread_keeps_nothing(self) -> None:
        def work(name: str | None) -> str | None:
            if name is None:
                return DynamoPrefixContext.get()
            with DynamoPrefixContext.scope(name):
                return DynamoPrefixContext.get()

        with ThreadPoolExecutor(max_workers=1) as pool:
            assert [pool.submit(work, n).result() for n in ("a", None, "b", None)] == ["a", None, "b", None]


class TestIdentity:
    def test_the_client_has_one_id(self) -> None:
        template = PrefixTemplate("nat-dynamo-{uuid}")
        first, second = current_identity(template), current_identity(template)
        assert first.prefix_id == second.prefix_id == f"nat-dynamo-{template.client_uuid}"
        assert not first.in_workflow
        assert PrefixTemplate("nat-dynamo-{uuid}").client_uuid != template.client_uuid

    def test_order_of_sources(self) -> None:
        template = PrefixTemplate("t-{uuid}")
        run = STATE.workflow_run_id.set("run-1")
        try:
            assert current_identity(template).prefix_id == "run-1"
            conversation = STATE.conversation_id.set("chat-1")
            try:
                assert current_identity(template).prefix_id == "chat-1"
                with DynamoPrefixContext.scope("mine"):
                    assert current_identity(template).prefix_id == "mine"
            finally:
                STATE.conversation_id.reset(conversation)
        finally:
            STATE.workflow_run_id.reset(run)

    def test_a_template_with_the_run_shapes_the_id(self) -> None:
        template = PrefixTemplate("exp7-{run}-{function}")
        run = STATE.workflow_run_id.set("r")
        path = STATE.function_path_stack.set(["wf", "writer"])
        try:
            assert current_identity(template).prefix_id == "exp7-r-writer"
        finally:
            STATE.function_path_stack.reset(path)
            STATE.workflow_run_id.reset(run)

    def test_chains_and_parents(self) -> None:
        assert sessions_of("q", []) == ("q", None)
        assert sessions_of("q", ["workflow"]) == ("q", None)
        assert sessions_of("q", ["workflow", "a"]) == ("q/a", "q")
        assert sessions_of("q", ["workflow", "b"]) == ("q/b", "q")
        assert sessions_of("q", ["workflow", "a", "b"]) == ("q/a/b", "q/a")

    def test_the_function_that_opens_a_scope_bears_its_id(self) -> None:
        template = PrefixTemplate("{uuid}")
        path = STATE.function_path_stack.set(["wf", "agent"])
        try:
            with DynamoPrefixContext.scope("mine"):
                assert current_identity(template).session_id == "mine"
                inner = STATE.function_path_stack.set(["wf", "agent", "helper"])
                identity = current_identity(template)
                assert (identity.session_id, identity.parent_session_id) == ("mine/helper", "mine")
                STATE.function_path_stack.reset(inner)
        finally:
            STATE.function_path_stack.reset(path)


class TestWireId:
    @given(st.text(min_size=1, max_size=600))
    def test_fits_a_header(self, identifier: str) -> None:
        safe = wire_id(identifier)
        assert 0 < len(safe) <= MAX_ID_BYTES
        assert safe.isascii() and safe.isprintable() and safe == safe.strip()
        assert wire_id(identifier) == safe

    @given(st.lists(st.text(max_size=400), min_size=2, max_size=2, unique=True))
    def test_different_ids_stay_different(self, pair: list[str]) -> None:
        assert wire_id(pair[0]) != wire_id(pair[1])

    def test_ordinary_ids_are_kept(self) -> None:
        assert wire_id("eval-multi_turn_base_12-3f2a/agent.x") == "eval-multi_turn_base_12-3f2a/agent.x"

    def test_a_long_id_keeps_its_head(self) -> None:
        safe = wire_id("question-" + "x" * 1000)
        assert safe.startswith("question-xxx") and len(safe) == MAX_ID_BYTES


class TestTemplate:
    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("a-{uid}", r"\{uid\}.*did you mean \{uuid\}"),
            ("a-{conversation_id}", r"did you mean \{conversation\}"),
            ("a-{", "is not a template"),
            ("a-{}", "unknown placeholder"),
            ("", "non-empty"),
        ],
    )
    def test_errors_name_the_nearest(self, template: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_template(template)

    def test_a_constant_template_is_allowed(self) -> None:
        assert PrefixTemplate("shared").render(run="r", conversation=None, function=None) == "shared"
