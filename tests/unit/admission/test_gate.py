from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nat_dynamo_plugin.admission import gate as module
from nat_dynamo_plugin.admission.gate import Gate, Place, gates
from nat_dynamo_plugin.admission.limits import UnderWay
from nat_dynamo_plugin.admission.prompts import Prompt
from nat_dynamo_plugin.telemetry.record import CallRecord

InChild = Callable[[Callable[[], bool]], bool]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A limiter that does what capacity says, and notes what it hears of calls."""

    def __init__(self, room: float | None) -> None:
        self.room = room
        self.told: list[tuple[int, int]] = []
        self.calls: list[tuple[CallRecord, UnderWay]] = []

    def on_capacity(self, tokens: int, workers: int) -> None:
        self.told.append((tokens, workers))
        self.room = float(tokens)

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        self.calls.append((record, under_way))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def waits(gate: Gate, name: str) -> asyncio.Task[Place]:
    """A task that waits at the gate."""
    task = asyncio.create_task(gate.place(name).__aenter__())
    await turns()
    assert not task.done()
    return task


async def cancelled(task: asyncio.Task[Place]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def into(gate: Gate, name: str) -> Place:
    return await asyncio.wait_for(gate.place(name).__aenter__(), 30)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(true: Callable[[], bool]) -> None:
    """Wait until another thread has come so far."""
    for _ in range(60_000):
        if true():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not happen")


class TestInALoop:
    async def test_waits_its_turn(self) -> None:
        clock = Clock()
        gate = Gate(1, clock=clock)
        async with gate.place("a") as first:
            clock.now = 1.0
            task = await waits(gate, "b")
            clock.now = 3.5
        gate.end("a")
        place = await task
        assert gate.under_way == 1
        assert first.waited_ms is None
        assert place.waited_ms == 2500.0

    async def test_a_call_that_joins_its_waiting_question_waited_from_then_on(self) -> None:
        clock = Clock()
        gate = Gate(1, clock=clock)
        await into(gate, "a")
        task = await waits(gate, "b")
        clock.now = 2.0
        later = await waits(gate, "b")
        clock.now = 3.0
        gate.end("a")
        assert [(await task).waited_ms, (await later).waited_ms] == [3000.0, 1000.0]

    async def test_a_cancelled_waiter_leaves(self) -> None:
        gate = Gate(1, clock=Clock())
        await into(gate, "a")
        task = await waits(gate, "b")
        assert gate.waiting == 1
        await cancelled(task)
        assert gate.waiting == 0
        gate.end("a")
        assert gate.under_way == 0

    async def test_a_waiter_cancelled_in_its_turn_leaves_no_place_taken(self) -> None:
        gate = Gate(1, clock=Clock())
        await into(gate, "a")
        task = await waits(gate, "b")
        gate.end("a")  # b's turn has come, but it has not run yet
        await cancelled(task)
        assert gate.under_way == 0
        await into(gate, "c")

    async def test_waits_for_nobody_that_waits_for_it(self) -> None:
        gate = Gate(1, clock=Clock())

        async def question(name: str, around: tuple[str, ...], depth: int) -> None:
            async with gate.place(name, around):
                if depth:
                    await asyncio.gather(*(question(f"{name}/{n}", (name, *around), depth - 1) for n in range(3)))
            gate.end(name)

        await asyncio.wait_for(asyncio.gather(*(question(f"q{n}", (), 3) for n in range(10))), 30)
        assert (gate.under_way, gate.waiting) == (0, 0)

    async def test_never_more_than_the_limit(self) -> None:
        gate = Gate(3, clock=Clock())
        most = 0

        async def question(number: int) -> None:
            nonlocal most
            for _ in range(3):
                async with gate.place(f"q{number}"):
                    most = max(most, gate.under_way)
                    await turns(number % 4)
                await turns(number % 3)
            gate.end(f"q{number}")

        await asyncio.gather(*(question(n) for n in range(40)))
        assert most == 3

    async def test_a_blocking_call_goes_in_at_once_and_the_log_says_what_to_do(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = Gate(1, model="my-model", clock=Clock())
        await into(gate, "a")
        joined = await waits(gate, "b")
        with gate.place("b") as place, gate.place("c"):
            assert place.waited_ms is None
            assert (gate.under_way, gate.waiting) == (3, 0)
        await joined
        (record,) = caplog.records
        assert "my-model" in record.getMessage() and "ainvoke" in record.getMessage()
        with gate.place("d"):
            assert gate.under_way == 4
        assert len(caplog.records) == 1

    async def test_a_blocking_call_in_a_thread_of_a_loop_waits(self) -> None:
        gate = Gate(1, clock=Clock())
        await into(gate, "a")
        task = asyncio.create_task(asyncio.to_thread(gate.place("b").__enter__))
        async with asyncio.timeout(30):
            while not gate.waiting:  # noqa: ASYNC110 - another thread
                await asyncio.sleep(0.001)
        gate.end("a")
        assert (await task).waited_ms is not None

    async def test_only_the_callers_that_have_waited_longest_look_after_the_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate(1, clock=Clock())
        looks = 0
        poll = gate.poll

        def count() -> float:
            nonlocal looks
            looks += 1
            return poll()

        monkeypatch.setattr(gate, "poll", count)
        await into(gate, "first")
        tasks = [await waits(gate, f"q{n}") for n in range(50)]
        assert looks == 1
        await cancelled(tasks[30])
        assert looks == 1
        await cancelled(tasks[0])
        await turns()
        assert looks == 2, "the next looks now"
        gate.end("first")
        await tasks[1]
        await turns()
        assert looks == 3
        for task in tasks[2:30]:
            task.cancel()


class TestAPlaceEndsOnce:
    def test_leaving_twice_is_harmless(self) -> None:
        gate = Gate(2)
        one, two = gate.place("q"), gate.place("q")
        with one, two:
            for _ in range(3):
                one.end()
            (question,) = gate._queue._in.values()
            assert question.calls == 1
        assert question.calls == 0
        one.end(CallRecord(prompt_tokens=3))
        assert question.calls == 0

    def test_entering_twice_is_refused(self) -> None:
        gate = Gate(2)
        place = gate.place("q")
        with place, pytest.raises(RuntimeError, match="entered once"):
            place.__enter__()
        with pytest.raises(RuntimeError, match="entered once"):
            place.__enter__()
        (question,) = gate._queue._in.values()
        assert question.calls == 0

    def test_a_call_that_is_over_does_not_enter(self) -> None:
        gate = Gate(2)
        place = gate.place("q")
        place.end()
        with pytest.raises(RuntimeError):
            place.__enter__()
        assert gate.under_way == 0

    def test_what_raises_inside_ends_it(self) -> None:
        gate = Gate(2)
        with pytest.raises(ZeroDivisionError), gate.place("q"):
            raise ZeroDivisionError
        (question,) = gate._queue._in.values()
        assert question.calls == 0

    def test_many_threads_end_it_once(self) -> None:
        gate = Gate(2)
        others = [gate.place("q").__enter__() for _ in range(3)]
        for _ in range(50):
            place = gate.place("q").__enter__()
            threads = [in_thread(place.end) for _ in range(8)]
            for thread in threads:
                thread.join(30)
        (question,) = gate._queue._in.values()
        assert question.calls == len(others)

    def test_the_end_may_come_while_it_waits(self) -> None:
        gate = Gate(1)
        gate.place("a").__enter__()
        place = gate.place("b")
        thread = in_thread(place.__enter__)
        until(lambda: gate.waiting == 1 and place.wake in gate._queue.oldest.wake)  # type: ignore[union-attr]
        place.end()
        thread.join(30)
        assert not thread.is_alive()
        assert (gate.under_way, gate.waiting) == (1, 0)

    def test_a_destructor_may_end_it_in_the_middle_of_something(self) -> None:
        gate = Gate(1)
        place = gate.place("a").__enter__()
        with gate._lock:
            place.end()
            gate.end("a")
            assert gate.under_way == 1
        assert gate.under_way == 0

    def test_a_record_reaches_the_limiter(self) -> None:
        limiter = Told(None)
        gate = Gate(limiter)
        left, ended, silent = CallRecord(prompt_tokens=1), CallRecord(prompt_tokens=2), gate.place("q")
        with gate.place("q") as place:
            place.answered(left)
        gate.place("q").__enter__().end(ended)
        with silent:
            pass
        assert [record for record, _ in limiter.calls] == [left, ended]
        assert [under_way.questions for _, under_way in limiter.calls] == [1, 1]


class TestInThreads:
    def test_a_thread_waits_its_turn(self) -> None:
        gate = Gate(1)
        gate.place("a").__enter__()
        place = gate.place("b")
        thread = in_thread(place.__enter__)
        until(lambda: gate.waiting == 1)
        gate.end("a")
        thread.join(30)
        assert not thread.is_alive()
        assert place.waited_ms is not None and place.waited_ms >= 0

    def test_a_wait_that_is_broken_off_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Gate(1)
        gate.place("a").__enter__()

        def interrupt(self: threading.Event, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(threading.Event, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gate.place("b").__enter__()
        assert (gate.under_way, gate.waiting) == (1, 0)

    def test_loops_and_threads_share_a_gate(self) -> None:
        gate = Gate(2)
        served: list[str] = []

        async def ask(name: str) -> None:
            for _ in range(4):
                async with gate.place(name):
                    await asyncio.sleep(0)
            gate.end(name)
            served.append(name)

        def ask_here(name: str) -> None:
            for _ in range(4):
                with gate.place(name):
                    pass
            gate.end(name)
            served.append(name)

        async def many(loop: int) -> None:
            await asyncio.gather(*(ask(f"{loop}-{n}") for n in range(15)))

        threads = [in_thread(lambda n=n: asyncio.run(many(n))) for n in range(3)]
        threads += [in_thread(lambda n=n: ask_here(f"t-{n}")) for n in range(15)]
        for thread in threads:
            thread.join(60)
        assert len(served) == 60
        assert (gate.under_way, gate.waiting) == (0, 0)

    def test_a_waiter_whose_loop_is_gone_does_not_hold_a_place(self) -> None:
        gate = Gate(1, clock=Clock())
        gate.place("a").__enter__()
        loop = asyncio.new_event_loop()
        task = loop.create_task(gate.place("dead").__aenter__())
        loop.run_until_complete(turns())
        loop.close()
        alive = gate.place("alive")
        thread = in_thread(alive.__enter__)
        until(lambda: gate.waiting == 2)
        gate.end("a")
        thread.join(30)
        assert not thread.is_alive()
        assert gate.under_way == 1
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_idle_questions_are_seen_without_anything_happening(self) -> None:
        gate = Gate(1, idle_s=0.02)
        with gate.place("a"):
            pass
        thread = in_thread(gate.place("b").__enter__)
        thread.join(30)
        assert not thread.is_alive()


class TestReadsPrompts:
    @staticmethod
    def body(system: str, text: str) -> bytes:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return json.dumps({"model": "m", "messages": messages}).encode()

    def test_of_a_questions_first_call_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reads: list[bytes] = []
        read = module.read_prompt

        def count(body: bytes) -> Prompt:
            reads.append(body)
            return read(body)

        monkeypatch.setattr(module, "read_prompt", count)
        gate = Gate(Told(None), clock=Clock())
        gate.place("a", body=self.body("s" * 4000, "one")).__enter__()
        tokens = gate.tokens
        assert 1000 < tokens < 1100
        gate.place("a", body=self.body("other" * 4000, "two")).__enter__()
        assert gate.tokens == tokens
        assert len(reads) == 1

    def test_and_counts_what_they_share_once(self) -> None:
        gate = Gate(Told(None), clock=Clock())
        for number in range(10):
            gate.place(f"q{number}", body=self.body("s" * 4000, f"question {number}")).__enter__()
        assert 1000 < gate.tokens < 1300

    def test_without_holding_others_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Gate(2)

        def read(body: bytes) -> Prompt:
            with gate.place("other"):
                pass
            return original(body)

        original = module.read_prompt
        monkeypatch.setattr(module, "read_prompt", read)
        with gate.place("a", body=self.body("s", "one")):
            assert gate.under_way == 2

    async def test_capacity_lets_in_whoever_fits_it(self) -> None:
        limiter = Told(1100.0)
        gate = Gate(limiter, clock=Clock())
        await gate.place("a", body=self.body("a" * 4000, "one")).__aenter__()
        task = asyncio.create_task(gate.place("b", body=self.body("b" * 4000, "one")).__aenter__())
        await turns()
        assert gate.waiting == 1
        gate.on_capacity(5000, 2)
        assert limiter.told == [(5000, 2)]
        await task
        assert (gate.limit, gate.room) == (None, 5000)

    def test_a_number_stays_a_number_whatever_the_capacity(self) -> None:
        gate = Gate(1, clock=Clock())
        gate.on_capacity(5000, 2)
        assert (gate.limit, gate.room, gate.adapts) == (1, None, False)


@contextmanager
def held_elsewhere(gate: Gate) -> Iterator[None]:
    """Another thread holds the gate's lock."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with gate._lock:
            held.set()
            done.wait(60)

    thread = in_thread(hold)
    assert held.wait(30)
    yield
    done.set()
    thread.join(30)


class TestAfterAFork:
    def test_the_child_is_not_locked_out_by_a_thread_of_the_parent(self, in_child: InChild) -> None:
        gate = Gate(1)

        def check() -> bool:
            with gate.place("mine"):
                return gate.under_way == 1

        with held_elsewhere(gate):
            assert in_child(check)

    def test_the_childs_gate_is_empty_and_the_parents_is_not(self, in_child: InChild) -> None:
        gate = Gate(1)
        place = gate.place("parent's").__enter__()

        def check() -> bool:
            empty = gate.under_way == 0
            with gate.place("mine"):
                place.end()
                return empty and gate.under_way == 1

        assert in_child(check)
        assert gate.under_way == 1


def test_metrics_find_the_gates_that_are_in_use() -> None:
    gate = Gate(1, model="listed")
    assert gate in gates()
    del gate
    assert [gate for gate in gates() if gate.model == "listed"] == []
