from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nat_dynamo_plugin.admission.gate import HEAD_START_S, LOST_S, UNKNOWN_PROMPT, AdmissionQueue, Gate, Pass
from nat_dynamo_plugin.admission.limits import UnderWay
from nat_dynamo_plugin.admission.prompts import Prompt
from nat_dynamo_plugin.plan.serving import MAX_OVERTAKING_S
from nat_dynamo_plugin.telemetry.record import CallRecord

NAMES = [f"q{n}" for n in range(8)]


def prompt(shared: str, own: str = "", shared_bytes: int = 4000, own_bytes: int = 400) -> Prompt:
    """A prompt whose beginning, of 1000 tokens unless told, others share."""
    pieces = ((hash(shared), shared_bytes),)
    return Prompt((*pieces, (hash((shared, own)), own_bytes)) if own else pieces)


PROMPTS = [UNKNOWN_PROMPT, *(prompt(shared, own) for shared in "ab" for own in ("", "x", "y", "z"))]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls, answers, ends, cancellations and passing time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = AdmissionQueue(2, idle_s=10.0, max_wait_s=50.0)
        self.in_flight: list[str] = []
        self.tickets: list[Any] = []

    def _collect(self) -> None:
        for ticket in [t for t in self.tickets if t.admitted]:
            self.tickets.remove(ticket)
            self.in_flight.append(ticket.prefix_id)

    @rule(name=st.sampled_from(NAMES), work=st.none() | st.floats(0, 1e6), prompt=st.sampled_from(PROMPTS))
    def call(self, name: str, work: float | None, prompt: Prompt) -> None:
        was_in = self.queue.is_in(name)
        ticket = self.queue.begin(name, work, self.now, prompt)
        if was_in:
            assert ticket is None, "a call of a question under way waited"
        if ticket is None:
            self.in_flight.append(name)
        else:
            self.tickets.append(ticket)
        self._collect()

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.in_flight))
        self.in_flight.remove(name)
        tokens = data.draw(st.none() | st.integers(0, 3000))
        self.queue.answered(name, CallRecord(prompt_tokens=tokens, completion_tokens=10))
        self.queue.end_call(name, self.now)
        self._collect()

    @rule(name=st.sampled_from(NAMES))
    def end(self, name: str) -> None:
        self.queue.end(name, self.now)
        self.in_flight = [other for other in self.in_flight if other != name]
        self._collect()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        self.queue.leave(ticket, self.now)
        self._collect()

    @rule(limit=st.none() | st.integers(1, 5), room=st.none() | st.floats(0, 5000))
    def change_the_limit(self, limit: int | None, room: float | None) -> None:
        self.queue.limit, self.queue.room = limit, room
        self.queue.poll(self.now)
        self._collect()

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.poll(self.now)
        self._collect()

    @invariant()
    def work_is_conserved(self) -> None:
        if self.queue.waiting:
            full = self.queue.limit is not None and self.queue.under_way >= self.queue.limit
            assert full or self.queue.room is not None
            assert self.queue.in_flight > 0, "somebody waits for an idle cluster"

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.in_flight == len(self.in_flight)
        assert self.queue.waiting == len({ticket.prefix_id for ticket in self.tickets})
        assert self.queue.under_way or self.queue.tokens == pytest.approx(0.0, abs=1e-6)

    @invariant()
    def no_one_waits_too_long(self) -> None:
        assert all(self.now - ticket.since < 50.0 for ticket in self.tickets)

    @invariant()
    def there_is_a_time_to_look_again(self) -> None:
        delay = self.queue.poll(self.now)
        assert (delay < math.inf) == bool(self.queue.waiting)
        self._collect()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def waiting(queue: AdmissionQueue, name: str, work: float | None, now: float, prompt: Prompt = UNKNOWN_PROMPT) -> Any:
    ticket = queue.begin(name, work, now, prompt)
    assert ticket is not None
    return ticket


class TestOrder:
    def test_the_least_work_goes_first(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("first", None, 0.0)
        long, short = waiting(queue, "long", 5000, 0.0), waiting(queue, "short", 50, 1.0)
        queue.end("first", 2.0)
        assert short.admitted and not long.admitted

    def test_who_says_nothing_goes_in_turn(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("first", None, 0.0)
        tickets = [waiting(queue, f"q{n}", None, float(n)) for n in range(5)]
        for n in range(5):
            queue.end("first" if n == 0 else f"q{n - 1}", 10.0 + n)
            assert [t.admitted for t in tickets] == [True] * (n + 1) + [False] * (4 - n)

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    def test_nobody_is_overtaken_by_one_that_comes_much_later(self, early: float, late: float) -> None:
        queue = AdmissionQueue(1, max_wait_s=math.inf, idle_s=math.inf)
        queue.begin("first", None, 0.0)
        before = waiting(queue, "before", early, 0.0)
        after = waiting(queue, "after", late, MAX_OVERTAKING_S + 1.0)
        queue.end("first", MAX_OVERTAKING_S + 2.0)
        assert before.admitted and not after.admitted

    def test_a_long_question_gets_through_a_stream_of_short_ones(self) -> None:
        # One second each, a new short one every second, for ever: the place is never free but for one of them.
        queue = AdmissionQueue(1, max_wait_s=math.inf, idle_s=math.inf)
        queue.begin("short-0", 10, 0.0)
        long = waiting(queue, "long", 1e6, 0.5)
        for second in range(1, 2 * MAX_OVERTAKING_S):
            waiting(queue, f"short-{second}", 10, second - 0.25)
            queue.end(f"short-{second - 1}", float(second))
            if long.admitted:
                break
        assert long.admitted
        assert second <= MAX_OVERTAKING_S + 2
        assert second > MAX_OVERTAKING_S / 2, "work does not count for much"

    def test_nobody_waits_longer_than_the_bound_though_no_place_gets_free(self) -> None:
        queue = AdmissionQueue(1, max_wait_s=60.0)
        queue.begin("for ever", None, 0.0)
        ticket = waiting(queue, "other", None, 1.0)
        assert queue.poll(2.0) == pytest.approx(59.0)
        queue.poll(60.5)
        assert not ticket.admitted
        queue.poll(61.0)
        assert ticket.admitted

    def test_questions_that_share_their_beginning_go_together(self) -> None:
        queue = AdmissionQueue(2)
        queue.begin("a0", 100, 0.0, prompt("tools a", "0"))
        queue.begin("b0", 100, 0.0, prompt("tools b", "0"))
        c, a, b = (waiting(queue, name, 100, 1.0, prompt(f"tools {name}", "1")) for name in "cab")
        queue.end("b0", 2.0)
        assert a.admitted and not b.admitted and not c.admitted
        queue.end("a0", 3.0)
        queue.end("a", 3.0)
        assert b.admitted and c.admitted

    def test_a_little_in_common_is_no_head_start(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("a0", 100, 0.0, prompt("same system prompt", "0", 400, 4000))
        first = waiting(queue, "b", 100, 1.0, prompt("other", "1"))
        second = waiting(queue, "a1", 100, 2.0, prompt("same system prompt", "1", 400, 4000))
        queue.limit = 2
        queue.admit(3.0)
        assert first.admitted and not second.admitted

    def test_sharing_does_not_outweigh_a_long_wait(self) -> None:
        queue = AdmissionQueue(1, max_wait_s=math.inf)
        queue.begin("a0", 100, 0.0, prompt("a", "0"))
        other = waiting(queue, "b", 100, 0.0, prompt("b", "0"))
        sharing = waiting(queue, "a1", 100, HEAD_START_S + 1.0, prompt("a", "1"))
        queue.limit = 2
        queue.admit(HEAD_START_S + 2.0)
        assert other.admitted and not sharing.admitted


class TestRoom:
    def test_what_prompts_share_takes_room_once(self) -> None:
        # 1000 tokens that are shared and 100 of each question's own.
        queue = AdmissionQueue(None, room=1350.0)
        for number in range(3):
            assert queue.begin(f"a{number}", None, 0.0, prompt("a", f"{number}")) is None
        assert queue.tokens == pytest.approx(1300.0)
        waiting(queue, "a3", None, 0.0, prompt("a", "3"))

    def test_a_prompt_that_does_not_fit_waits_for_room(self) -> None:
        queue = AdmissionQueue(None, room=2000.0)
        queue.begin("a", None, 0.0, prompt("a", "0"))
        ticket = waiting(queue, "b", None, 1.0, prompt("b", "0"))
        queue.end("a", 2.0)
        assert ticket.admitted

    def test_a_prompt_larger_than_the_room_goes_when_nothing_is_in_flight(self) -> None:
        queue = AdmissionQueue(None, room=10.0)
        assert queue.begin("a", None, 0.0, prompt("a", "0")) is None
        ticket = waiting(queue, "b", None, 1.0, prompt("b", "0"))
        queue.end_call("a", 2.0)
        assert ticket.admitted

    def test_answers_tell_how_long_prompts_are_and_how_much_they_grow(self) -> None:
        queue = AdmissionQueue(None)
        for number in range(400):
            queue.begin("q", None, 0.0, prompt("a", f"{number}"))
            for call in range(3):
                queue.answered("q", CallRecord(prompt_tokens=2200 + 300 * call, completion_tokens=0))
            queue.end("q", 0.0)
        queue.begin("q", None, 0.0, prompt("a", "last"))
        assert queue.tokens == pytest.approx(2200 + 300, rel=0.05)

    def test_prompts_that_can_not_be_read_count_as_many_tokens_as_usual(self) -> None:
        queue = AdmissionQueue(None)
        for _ in range(200):
            queue.begin("q", None, 0.0)
            queue.answered("q", CallRecord(prompt_tokens=700))
            queue.end("q", 0.0)
        for number in range(3):
            queue.begin(f"q{number}", None, 0.0)
        assert queue.tokens == pytest.approx(2100, rel=0.05)

    def test_a_call_of_a_question_under_way_never_waits_for_room(self) -> None:
        queue = AdmissionQueue(None, room=2000.0)
        queue.begin("a", None, 0.0, prompt("a", "0"))
        queue.room = 10.0
        assert queue.begin("a", None, 1.0, prompt("a", "0", own_bytes=40_000)) is None


class TestPlaces:
    def test_calls_of_one_waiting_question_go_together(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("first", None, 0.0)
        one, two = waiting(queue, "q", None, 1.0), waiting(queue, "q", None, 1.0)
        assert one is two
        queue.end("first", 2.0)
        assert queue.in_flight == 2
        assert queue.under_way == 1

    def test_a_question_that_never_ends_falls_idle(self) -> None:
        queue = AdmissionQueue(1, idle_s=30.0)
        queue.begin("left open", None, 0.0)
        queue.begin("left open", None, 0.0)
        queue.end_call("left open", 5.0)
        ticket = waiting(queue, "next", None, 6.0)
        queue.poll(100.0)
        assert not ticket.admitted, "one call is in flight still"
        queue.end_call("left open", 100.0)
        assert ticket.admitted, "nothing is in flight, so the cluster would be idle"

    def test_an_idle_question_makes_room(self) -> None:
        queue = AdmissionQueue(2, idle_s=30.0)
        queue.begin("idle", None, 0.0)
        queue.begin("busy", None, 0.0)
        queue.end_call("idle", 1.0)
        ticket = waiting(queue, "next", None, 2.0)
        assert queue.poll(10.0) == pytest.approx(21.0)
        queue.poll(31.0)
        assert ticket.admitted
        assert not queue.is_in("idle")

    def test_a_lost_call_does_not_hold_its_place_for_ever(self) -> None:
        queue = AdmissionQueue(1, max_wait_s=math.inf)
        queue.begin("lost", None, 0.0)
        ticket = waiting(queue, "next", None, 1.0)
        queue.poll(LOST_S + 1.0)
        assert ticket.admitted

    def test_a_question_in_a_question_goes_on_its_place(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("outer", None, 0.0)
        host = queue.host("inner", ("middle", "outer"))
        assert host == "outer"
        assert queue.begin(host, None, 1.0) is None
        assert queue.host("inner", ("unknown",)) == "inner"

    def test_whoever_cancels_is_forgotten(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("first", None, 0.0)
        gone, next_one = waiting(queue, "gone", None, 1.0), waiting(queue, "next", None, 2.0)
        queue.leave(gone, 3.0)
        queue.end("first", 4.0)
        assert next_one.admitted and not gone.admitted

    def test_whoever_cancels_when_its_turn_has_come_makes_room(self) -> None:
        queue = AdmissionQueue(1)
        queue.begin("first", None, 0.0)
        gone, next_one = waiting(queue, "gone", None, 1.0), waiting(queue, "next", None, 2.0)
        queue.end("first", 3.0)
        assert gone.admitted
        queue.leave(gone, 4.0)
        assert next_one.admitted

    def test_a_smaller_limit_drives_nobody_out(self) -> None:
        queue = AdmissionQueue(3)
        for name in "abc":
            queue.begin(name, None, 0.0)
        queue.limit = 1
        assert queue.begin("a", None, 1.0) is None
        ticket = waiting(queue, "d", None, 1.0)
        queue.end("a", 2.0)
        queue.end("b", 2.0)
        assert not ticket.admitted
        queue.end("c", 2.0)
        assert ticket.admitted


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class TestGateInALoop:
    async def test_waits_its_turn(self) -> None:
        gate = Gate(1, clock=Clock())
        first = gate.begin("a")
        entry = gate.begin("b")
        assert first.ticket is None and entry.ticket is not None
        task = asyncio.create_task(gate.wait_async(entry))
        await turns()
        assert not task.done()
        gate.end_call(first)
        gate.end("a")
        await task
        assert gate.under_way == 1

    async def test_a_cancelled_waiter_leaves(self) -> None:
        gate = Gate(1, clock=Clock())
        gate.begin("a")
        task = asyncio.create_task(gate.wait_async(gate.begin("b")))
        await turns()
        assert gate.waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.waiting == 0
        gate.end("a")
        assert gate.under_way == 0

    async def test_a_waiter_cancelled_in_its_turn_leaves_no_place_taken(self) -> None:
        gate = Gate(1, clock=Clock())
        gate.begin("a")
        task = asyncio.create_task(gate.wait_async(gate.begin("b")))
        await turns()
        gate.end("a")  # b's turn has come, but it has not run yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.under_way == 0
        assert gate.begin("c").ticket is None

    async def test_waits_for_nobody_that_waits_for_it(self) -> None:
        gate = Gate(1, clock=Clock())

        async def question(name: str, around: tuple[str, ...], depth: int) -> None:
            entry = gate.begin(name, around)
            await gate.wait_async(entry)
            if depth:
                await asyncio.gather(*(question(f"{name}/{n}", (name, *around), depth - 1) for n in range(3)))
            gate.end_call(entry)
            gate.end(name)

        await asyncio.wait_for(asyncio.gather(*(question(f"q{n}", (), 3) for n in range(10))), 30)
        assert (gate.under_way, gate.waiting) == (0, 0)

    async def test_never_more_than_the_limit(self) -> None:
        gate = Gate(3, clock=Clock())
        most = 0

        async def question(number: int) -> None:
            nonlocal most
            for _ in range(3):
                entry = gate.begin(f"q{number}")
                await gate.wait_async(entry)
                most = max(most, gate.under_way)
                await turns(number % 4)
                gate.end_call(entry)
            gate.end(f"q{number}")

        # Somebody's call is always in flight, or an idle cluster would let more in.
        held = gate.begin("always")
        await asyncio.gather(*(question(n) for n in range(40)))
        gate.end_call(held)
        assert most == 3


class TestGateInThreads:
    @staticmethod
    def in_thread(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def test_a_thread_waits_its_turn(self) -> None:
        gate = Gate(1)
        gate.begin("a")
        entry = gate.begin("b")
        thread = self.in_thread(lambda: gate.wait(entry))
        gate.end("a")
        thread.join(10)
        assert not thread.is_alive()
        assert entry.waited_ms is not None and entry.waited_ms >= 0

    def test_loops_and_threads_share_a_gate(self) -> None:
        gate = Gate(2)
        served: list[str] = []

        async def ask(name: str) -> None:
            for _ in range(4):
                entry = gate.begin(name)
                await gate.wait_async(entry)
                await asyncio.sleep(0)
                gate.end_call(entry)
            gate.end(name)
            served.append(name)

        def ask_here(name: str) -> None:
            for _ in range(4):
                entry = gate.begin(name)
                gate.wait(entry)
                gate.end_call(entry)
            gate.end(name)
            served.append(name)

        async def many(loop: int) -> None:
            await asyncio.gather(*(ask(f"{loop}-{n}") for n in range(15)))

        threads = [self.in_thread(lambda n=n: asyncio.run(many(n))) for n in range(3)]
        threads += [self.in_thread(lambda n=n: ask_here(f"t-{n}")) for n in range(15)]
        for thread in threads:
            thread.join(30)
        assert len(served) == 60
        assert (gate.under_way, gate.waiting) == (0, 0)

    def test_a_waiter_whose_loop_is_gone_does_not_hold_a_place(self) -> None:
        gate = Gate(1, clock=Clock())
        gate.begin("a")
        loop = asyncio.new_event_loop()
        task = loop.create_task(gate.wait_async(gate.begin("dead")))
        loop.run_until_complete(turns())
        loop.close()
        entry: Pass = gate.begin("alive")
        gate.end("a")
        assert entry.ticket is not None and entry.ticket.admitted
        assert gate.under_way == 1
        task._log_destroy_pending = False  # type: ignore[attr-defined]


class TestGateReadsPrompts:
    @staticmethod
    def body(system: str, text: str) -> bytes:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return json.dumps({"model": "m", "messages": messages}).encode()

    def test_of_a_questions_first_call_only(self) -> None:
        gate = Gate(Told(None, None), clock=Clock())
        gate.begin("a", body=self.body("s" * 4000, "one"))
        tokens = gate.tokens
        assert 1000 < tokens < 1100
        gate.begin("a", body=self.body("other" * 4000, "two"))
        assert gate.tokens == tokens

    def test_and_counts_what_they_share_once(self) -> None:
        gate = Gate(Told(None, None), clock=Clock())
        for number in range(10):
            gate.begin(f"q{number}", body=self.body("s" * 4000, f"question {number}"))
        assert 1000 < gate.tokens < 1300

    def test_capacity_lets_in_whoever_fits_it(self) -> None:
        limiter = Told(1, None)
        gate = Gate(limiter, clock=Clock())
        gate.begin("a", body=self.body("a" * 4000, "one"))
        entry = gate.begin("b", body=self.body("b" * 4000, "one"))
        assert entry.ticket is not None and not entry.ticket.admitted
        gate.on_capacity(5000)
        assert limiter.told == [5000]
        assert entry.ticket.admitted
        assert (gate.limit, gate.room) == (None, 5000)

    def test_a_number_stays_a_number_whatever_the_capacity(self) -> None:
        gate = Gate(1, clock=Clock())
        gate.on_capacity(5000)
        assert (gate.limit, gate.room, gate.adapts) == (1, None, False)


class Told:
    """A limiter that does what capacity says."""

    def __init__(self, limit: int | None, room: float | None) -> None:
        self.limit = limit
        self.room = room
        self.told: list[int] = []

    def on_capacity(self, tokens: int) -> None:
        self.told.append(tokens)
        self.limit, self.room = None, float(tokens)

    def on_call(self, record: CallRecord, under_way: UnderWay, now: float) -> None:
        pass


def test_idle_questions_are_seen_without_anything_happening() -> None:
    clock = Clock()
    gate = Gate(2, clock=clock, idle_s=30.0)
    first = gate.begin("a")
    gate.begin("b")
    gate.end_call(first)
    entry = gate.begin("c")
    assert entry.ticket is not None
    clock.now = 31.0
    gate.poll()
    assert entry.ticket.admitted
