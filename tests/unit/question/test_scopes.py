from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from nat_dynamo_plugin.question.endings import on_question_end
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext


class Listener:
    """Keeps the ids of the questions that ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        on_question_end(self)

    def question_ended(self, prefix_id: str) -> None:
        self.ended.append(prefix_id)


@pytest.fixture
def ended() -> Iterator[list[str]]:
    listener = Listener()
    yield listener.ended


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

    def test_a_lone_surrogate_is_written_as_its_escape(self) -> None:
        with DynamoPrefixContext.scope("ticket-\ud83d"):
            assert DynamoPrefixContext.get() == "ticket-\\ud83d"

    def test_the_outer_id_is_back_after_an_inner_one_was_set_or_cleared(self) -> None:
        with DynamoPrefixContext.scope("outer"):
            with DynamoPrefixContext.scope("inner"):
                DynamoPrefixContext.set("set")
                assert DynamoPrefixContext.get() == "set"
            assert DynamoPrefixContext.get() == "outer"
            with DynamoPrefixContext.scope("inner"):
                DynamoPrefixContext.clear()
                assert DynamoPrefixContext.get() is None
            assert DynamoPrefixContext.get() == "outer"


async def steps(name: str) -> AsyncIterator[str | None]:
    with DynamoPrefixContext.scope(name), DynamoHints.scope(osl=5):
        while True:
            yield DynamoPrefixContext.get()
            await asyncio.sleep(0)


class TestGenerators:
    async def test_another_task_closes_it(self, ended: list[str]) -> None:
        stream = steps("gen")

        async def consume() -> tuple[str | None, object]:
            await anext(stream)
            await closed.wait()
            return DynamoPrefixContext.get(), DynamoHints.current()

        closed = asyncio.Event()
        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0)
        await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
        assert ended == ["gen"]
        closed.set()
        assert await consumer == (None, None), "the id does not stay behind where the scope was entered"
        with DynamoPrefixContext.scope("gen"):
            pass
        assert ended == ["gen", "gen"], "a scope of the same id ends by itself again"

    async def test_nobody_closes_it_before_its_task_is_gone(self, ended: list[str]) -> None:
        async def consume() -> None:
            async for _ in steps("gen"):
                break

        await asyncio.create_task(consume())
        for _ in range(10):
            await asyncio.sleep(0)
        assert ended == ["gen"]

    def test_the_first_of_two_is_closed_first(self, ended: list[str]) -> None:
        def names(name: str) -> Iterator[str | None]:
            with DynamoPrefixContext.scope(name):
                while True:
                    yield DynamoPrefixContext.get()

        with DynamoPrefixContext.scope("outer"):
            one, two = names("one"), names("two")
            assert (next(one), next(two)) == ("one", "two")
            one.close()  # type: ignore[attr-defined]
            assert next(two) == "two"
            two.close()  # type: ignore[attr-defined]
            assert DynamoPrefixContext.get() == "outer"
        assert ended == ["one", "two", "outer"]

    async def test_a_task_that_outlives_its_scope_keeps_its_id(self) -> None:
        over = asyncio.Event()

        async def late() -> str | None:
            await over.wait()
            return DynamoPrefixContext.get()

        with DynamoPrefixContext.scope("q"):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        over.set()
        assert await task == "q"


class TestEndings:
    def test_the_last_scope_of_an_id_ends_its_question(self, ended: list[str]) -> None:
        with DynamoPrefixContext.scope("q"):
            with DynamoPrefixContext.scope("q"):
                pass
            assert ended == []
        assert ended == ["q"]

    def test_clear_inside_a_scope_ends_it_once(self, ended: list[str]) -> None:
        with DynamoPrefixContext.scope("q"):
            DynamoPrefixContext.clear()
            assert ended == ["q"]
        assert ended == ["q"]

    def test_clear_leaves_a_question_whose_id_has_another_scope(self, ended: list[str]) -> None:
        with DynamoPrefixContext.scope("q"):
            with DynamoPrefixContext.scope("q"):
                DynamoPrefixContext.clear()
            assert ended == []
        assert ended == ["q"]

    async def test_clear_ends_what_was_set(self, ended: list[str]) -> None:
        DynamoPrefixContext.set("q")
        DynamoPrefixContext.clear()
        DynamoPrefixContext.clear()
        assert ended == ["q"]

    def test_a_question_over_several_scopes_ends_when_somebody_says_so(self, ended: list[str]) -> None:
        for _ in range(2):
            with DynamoPrefixContext.scope("q", ends=False):
                pass
        assert ended == []
        DynamoPrefixContext.end("q")
        assert ended == ["q"]
        with DynamoPrefixContext.scope("q", ends=False):
            DynamoPrefixContext.end("q")
            assert ended == ["q"], "its calls are still under way"
        assert ended == ["q", "q"]

    def test_a_held_question_ends_with_the_block_and_sets_nothing(self, ended: list[str]) -> None:
        with DynamoPrefixContext.held("q"):
            assert DynamoPrefixContext.get() is None
            with DynamoPrefixContext.scope("q"):
                pass
            assert ended == []
        assert ended == ["q"]

    @pytest.mark.parametrize("bad", ["", " ", None])
    def test_an_empty_id_is_refused(self, bad: object) -> None:
        with pytest.raises(ValueError, match="prefix_id="):
            DynamoPrefixContext.end(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="prefix_id="):
            DynamoPrefixContext.held(bad)  # type: ignore[arg-type]

    def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(self, ended: list[str]) -> None:
        class Broken:
            def question_ended(self, prefix_id: str) -> None:
                raise RuntimeError("broken")

        broken = Broken()
        on_question_end(broken)
        with DynamoPrefixContext.scope("q"):
            pass
        assert ended == ["q"]
