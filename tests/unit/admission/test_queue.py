from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nat_dynamo_plugin.admission.prompts import Prompt, read_prompt
from nat_dynamo_plugin.admission.questions import UNKNOWN_PROMPT, Question
from nat_dynamo_plugin.admission.queue import (
    HEAD_START_S,
    LOOK_AHEAD,
    LOST_S,
    PASSING_S,
    AdmissionQueue,
)
from nat_dynamo_plugin.admission.working_set import WorkingSet
from nat_dynamo_plugin.plan.serving import MAX_OVERTAKING_S
from nat_dynamo_plugin.telemetry.record import CallRecord

NAMES = [f"q{n}" for n in range(8)]
MAX_WAIT_S = 50.0


def prompt(shared: str, own: str = "", shared_bytes: int = 4000, own_bytes: int = 400) -> Prompt:
    """A prompt whose beginning, of 1000 tokens unless told, others share."""
    pieces = ((hash(shared), shared_bytes),)
    return Prompt((*pieces, (hash((shared, own)), own_bytes)) if own else pieces)


PROMPTS = [UNKNOWN_PROMPT, *(prompt(shared, own) for shared in "ab" for own in ("", "x", "y", "z"))]


class QueueMachine(RuleBasedStateMachine):
    """Any order of calls, answers, ends, cancellations and passing time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = AdmissionQueue(2, idle_s=10.0, max_wait_s=MAX_WAIT_S)
        self.in_flight: list[Question] = []
        self.waiting: list[Question] = []  # one for each call
        self.late: set[Question] = set()

    def collect(self) -> None:
        for question in [q for q in self.waiting if q.admitted]:
            self.waiting.remove(question)
            self.in_flight.append(question)
            if self.now - question.since >= MAX_WAIT_S:
                self.late.add(question)

    @rule(name=st.sampled_from(NAMES), work=st.none() | st.floats(0, 1e6), prompt=st.sampled_from(PROMPTS))
    def call(self, name: str, work: float | None, prompt: Prompt) -> None:
        was_in = self.queue.is_in(name)
        question = self.queue.begin(name, work, self.now, prompt)
        if was_in:
            assert question.admitted, "a call of a question under way waited"
        (self.in_flight if question.admitted else self.waiting).append(question)
        self.collect()

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        question = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        tokens = data.draw(st.none() | st.integers(0, 3000))
        self.queue.answered(question, CallRecord(prompt_tokens=tokens, completion_tokens=10))
        self.queue.end_call(question, self.now)
        self.collect()

    @rule(name=st.sampled_from(NAMES))
    def end(self, name: str) -> None:
        self.queue.end(name, self.now)
        self.collect()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.queue.leave(self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))), self.now)
        self.collect()

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.poll(self.now)
        self.collect()

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.waiting == len(set(self.waiting))
        assert self.queue.under_way or self.queue.tokens == pytest.approx(0.0, abs=1e-6)
        assert self.queue.under_way or not self.queue.waiting

    @invariant()
    def there_is_a_time_to_look_again(self) -> None:
        delay = self.queue.poll(self.now)
        assert (delay < math.inf) == bool(self.queue.waiting)
        self.collect()

    def teardown(self) -> None:
        """Everybody gets in, though not one call that is in flight is ever answered."""
        for _ in range(len(self.waiting)):
            self.now += LOST_S
            self.queue.poll(self.now)
            self.collect()
        assert not self.waiting


class NumberMachine(QueueMachine):
    @initialize(limit=st.integers(1, 5))
    def choose(self, limit: int) -> None:
        self.queue.limit = limit

    @invariant()
    def the_number_bounds(self) -> None:
        limit = self.queue.limit
        assert limit is not None
        under_way = list(self.queue._in.values())
        assert len(under_way) <= limit + 1
        assert sum(question not in self.late for question in under_way) <= limit

    @invariant()
    def nobody_waits_for_a_free_place(self) -> None:
        limit = self.queue.limit
        assert limit is not None
        if self.waiting:
            too_late = any(self.now - question.since >= MAX_WAIT_S for question in self.waiting)
            assert self.queue.under_way >= limit + too_late


class AdaptingMachine(QueueMachine):
    @rule(limit=st.none() | st.integers(1, 5), room=st.none() | st.floats(0, 5000))
    def change(self, limit: int | None, room: float | None) -> None:
        self.queue.limit, self.queue.room = limit, room
        self.queue.poll(self.now)
        self.collect()

    @invariant()
    def nobody_waits_without_a_bound(self) -> None:
        assert not self.waiting or self.queue.limit is not None or self.queue.room is not None

    @invariant()
    def what_is_counted_is_in_and_has_room(self) -> None:
        queue = self.queue
        counted = [question for question in queue._in.values() if question.counted]
        assert len(counted) == queue.counted
        assert queue.under_way - queue.counted - len(queue._leaving) in (0, 1), "but for the one too many"
        assert queue.room is None or queue.counted <= 1 or queue.tokens <= queue.room + 1e-6

    @invariant()
    def nobody_is_in_two_places(self) -> None:
        queue = self.queue
        assert not set(queue._in) & set(queue._waiting)
        assert not set(queue._in) & set(queue._aside)
        assert not set(queue._waiting) & set(queue._aside)
        assert all(question.calls == 0 for question in queue._aside.values())
        assert all(question.calls > 0 for question in queue._leaving.values())

    @invariant()
    def all_pass_where_nothing_bounds(self) -> None:
        assert self.queue.room is not None or not self.queue._leaving


TestNumberMachine = NumberMachine.TestCase
TestAdaptingMachine = AdaptingMachine.TestCase
TestNumberMachine.settings = TestAdaptingMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)


def enter(queue: AdmissionQueue, name: str, now: float = 0.0, prompt: Prompt = UNKNOWN_PROMPT) -> Question:
    question = queue.begin(name, None, now, prompt)
    assert question.admitted
    return question


def waiting(
    queue: AdmissionQueue, name: str, work: float | None, now: float, prompt: Prompt = UNKNOWN_PROMPT
) -> Question:
    question = queue.begin(name, work, now, prompt)
    assert not question.admitted
    return question


class TestOrder:
    def test_the_least_work_goes_first(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        long, short = waiting(queue, "long", 5000, 0.0), waiting(queue, "short", 50, 1.0)
        queue.end("first", 2.0)
        assert short.admitted and not long.admitted

    def test_who_says_nothing_goes_in_turn(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        questions = [waiting(queue, f"q{n}", None, float(n)) for n in range(5)]
        for n in range(5):
            queue.end("first" if n == 0 else f"q{n - 1}", 10.0 + n)
            assert [q.admitted for q in questions] == [True] * (n + 1) + [False] * (4 - n)

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    def test_nobody_is_overtaken_by_one_that_comes_much_later(self, early: float, late: float) -> None:
        queue = AdmissionQueue(1, max_wait_s=math.inf, idle_s=math.inf)
        enter(queue, "first")
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

    def test_questions_that_share_their_beginning_go_together(self) -> None:
        queue = AdmissionQueue(2)
        enter(queue, "a0", prompt=prompt("tools a", "0"))
        enter(queue, "b0", prompt=prompt("tools b", "0"))
        c, a, b = (waiting(queue, name, 100, 1.0, prompt(f"tools {name}", "1")) for name in "cab")
        queue.end("b0", 2.0)
        assert a.admitted and not b.admitted and not c.admitted
        queue.end("a0", 3.0)
        queue.end("a", 3.0)
        assert b.admitted and c.admitted

    def test_a_little_in_common_is_no_head_start(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "a0", prompt=prompt("same system prompt", "0", 400, 4000))
        first = waiting(queue, "b", 100, 1.0, prompt("other", "1"))
        second = waiting(queue, "a1", 100, 2.0, prompt("same system prompt", "1", 400, 4000))
        queue.limit = 2
        queue.admit(3.0)
        assert first.admitted and not second.admitted

    def test_sharing_does_not_outweigh_a_long_wait(self) -> None:
        queue = AdmissionQueue(1, max_wait_s=math.inf)
        enter(queue, "a0", prompt=prompt("a", "0"))
        other = waiting(queue, "b", 100, 0.0, prompt("b", "0"))
        sharing = waiting(queue, "a1", 100, HEAD_START_S + 1.0, prompt("a", "1"))
        queue.limit = 2
        queue.admit(HEAD_START_S + 2.0)
        assert other.admitted and not sharing.admitted

    def test_a_long_queue_is_not_looked_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        queue = AdmissionQueue(None, room=1500.0, max_wait_s=math.inf)
        enter(queue, "a", prompt=prompt("a"))
        for number in range(1000):
            waiting(queue, f"q{number}", None, 1.0, prompt(f"q{number}"))
        looks: list[Prompt] = []
        missing = WorkingSet.missing

        def look(self: WorkingSet, prompt: Prompt) -> int:
            looks.append(prompt)
            return missing(self, prompt)

        monkeypatch.setattr(WorkingSet, "missing", look)
        waiting(queue, "one more", None, 2.0, prompt("one more"))
        assert 0 < len(looks) <= 2 * LOOK_AHEAD


class TestNumber:
    def test_bounds_also_while_all_questions_are_inside_their_tools(self) -> None:
        queue = AdmissionQueue(2)
        for name in "ab":
            queue.end_call(enter(queue, name), 1.0)
        other = waiting(queue, "c", None, 2.0)
        queue.poll(3.0)
        assert not other.admitted
        assert queue.under_way == 2

    @pytest.mark.parametrize(("limit", "call_s", "tool_s"), [(4, 0.1, 1.0), (4, 1.0, 0.1), (16, 0.5, 5.0)])
    def test_bounds_agents_whose_tools_take_longer_than_their_calls(
        self, limit: int, call_s: float, tool_s: float
    ) -> None:
        """200 questions of 10 calls each, all at once, in virtual time."""
        source = random.Random(0)
        queue = AdmissionQueue(limit, max_wait_s=math.inf)
        left = {f"q{number}": 10 for number in range(200)}
        events: list[tuple[float, str, Question | None]] = [(0.0, name, None) for name in left]
        waits: list[Question] = []
        most = 0
        while events:
            now, name, asked = min(events, key=lambda event: event[0])
            events.remove((now, name, asked))
            if asked is None:
                waits.append(queue.begin(name, None, now))
            else:
                queue.end_call(asked, now)
                left[name] -= 1
                if left[name]:
                    events.append((now + source.expovariate(1 / tool_s), name, None))
                else:
                    queue.end(name, now)
            for question in [q for q in waits if q.admitted]:
                waits.remove(question)
                events.append((now + source.expovariate(1 / call_s), question.prefix_id, question))
            most = max(most, queue.under_way)
        assert most == limit
        assert not waits and not any(left.values())


class TestLate:
    def test_a_backlog_does_not_open_the_gate(self) -> None:
        queue = AdmissionQueue(4, max_wait_s=300.0)
        for number in range(4):
            enter(queue, f"in{number}")
        late = [waiting(queue, f"w{number}", None, 1.0 + number / 1000) for number in range(200)]
        assert queue.poll(2.0) == pytest.approx(299.0)
        queue.poll(299.0)
        assert queue.under_way == 4
        queue.poll(302.0)
        assert queue.under_way == 5
        assert late[0].admitted
        assert queue.poll(302.0) > 1.0, "it waits for an end, not for a time"

    def test_the_next_late_one_goes_when_the_one_too_many_has_ended(self) -> None:
        queue = AdmissionQueue(1, max_wait_s=60.0)
        enter(queue, "for ever")
        late = [waiting(queue, f"w{number}", None, 1.0 + number) for number in range(5)]
        queue.poll(100.0)
        for number, question in enumerate(late):
            assert question.admitted and queue.under_way == 2
            queue.end(f"w{number}", 101.0 + number)

    def test_the_places_within_the_limit_go_by_the_usual_order(self) -> None:
        queue = AdmissionQueue(2, max_wait_s=60.0)
        for name in "ab":
            enter(queue, name)
        oldest, long, short = (waiting(queue, f"{work}", work, 1.0) for work in (1e6, 5000.0, 10.0))
        queue.poll(61.0)
        assert oldest.admitted and not short.admitted
        queue.end("a", 62.0)
        assert short.admitted and not long.admitted

    def test_what_is_larger_than_the_room_goes_in_late_beside_others(self) -> None:
        queue = AdmissionQueue(None, room=1500.0, max_wait_s=60.0)
        enter(queue, "a", prompt=prompt("a"))
        large = waiting(queue, "large", None, 1.0, prompt("large", shared_bytes=40_000))
        queue.poll(60.5)
        assert not large.admitted
        queue.poll(61.0)
        assert large.admitted
        assert queue.tokens == pytest.approx(1000.0), "the one too many does not take the others' room"
        enter(queue, "small", 62.0, prompt("small", shared_bytes=400))


class TestRoom:
    def test_what_prompts_share_takes_room_once(self) -> None:
        # 1000 tokens that are shared and 100 of each question's own.
        queue = AdmissionQueue(None, room=1350.0)
        for number in range(3):
            enter(queue, f"a{number}", prompt=prompt("a", f"{number}"))
        assert queue.tokens == pytest.approx(1300.0)
        waiting(queue, "a3", None, 0.0, prompt("a", "3"))

    def test_a_prompt_that_does_not_fit_waits_for_room(self) -> None:
        queue = AdmissionQueue(None, room=2000.0)
        enter(queue, "a", prompt=prompt("a", "0"))
        question = waiting(queue, "b", None, 1.0, prompt("b", "0"))
        queue.end("a", 2.0)
        assert question.admitted

    def test_a_prompt_larger_than_the_room_goes_when_nobody_is_in(self) -> None:
        queue = AdmissionQueue(None, room=10.0)
        first = enter(queue, "a", prompt=prompt("a", "0"))
        question = waiting(queue, "b", None, 1.0, prompt("b", "0"))
        queue.end_call(first, 2.0)
        queue.poll(3.0)
        assert not question.admitted
        queue.end("a", 4.0)
        assert question.admitted

    def test_answers_tell_how_long_prompts_are_and_how_much_they_grow(self) -> None:
        queue = AdmissionQueue(None)
        for number in range(400):
            question = enter(queue, "q", prompt=prompt("a", f"{number}"))
            for call in range(3):
                queue.answered(question, CallRecord(prompt_tokens=2200 + 300 * call, completion_tokens=0))
            queue.end("q", 0.0)
        question = enter(queue, "q", prompt=prompt("a", "last"))
        # Two of three calls had 300 tokens more than the one before.
        assert queue.tokens == pytest.approx(2200 + 200, rel=0.05)
        before = queue.tokens
        queue.answered(question, CallRecord(prompt_tokens=2200, completion_tokens=0))
        queue.answered(question, CallRecord(prompt_tokens=7000, completion_tokens=500))
        assert queue.tokens == pytest.approx(before + 5300, rel=0.05), "its own answer says how large it is"
        queue.end("q", 0.0)
        assert queue.tokens == pytest.approx(0.0)
        enter(queue, "q", prompt=prompt("a", "last"))
        assert queue.emptied().tokens == 0.0
        copy = queue.emptied()
        enter(copy, "q", prompt=prompt("a", "last"))
        assert copy.tokens == pytest.approx(queue.tokens), "what was learned is kept"

    def test_prompts_that_can_not_be_read_count_as_many_tokens_as_usual(self) -> None:
        queue = AdmissionQueue(None)
        for _ in range(200):
            queue.answered(enter(queue, "q"), CallRecord(prompt_tokens=700))
            queue.end("q", 0.0)
        for number in range(3):
            enter(queue, f"q{number}")
        assert queue.tokens == pytest.approx(2100, rel=0.05)


class TestSettingAside:
    """Those that are too many wait with their next calls, whole, the last in order first."""

    def three(self, room: float | None = 10_000.0) -> tuple[AdmissionQueue, list[Question]]:
        queue = AdmissionQueue(None, room=room)
        return queue, [enter(queue, name, now, prompt(name)) for now, name in enumerate("abc")]

    def test_the_last_ones_wait_with_their_next_calls(self) -> None:
        queue, questions = self.three()
        for question in questions:
            queue.end_call(question, 3.0)
        queue.room = 2000.0
        queue.poll(4.0)
        assert queue.tokens == pytest.approx(2000.0)
        enter(queue, "a", 5.0)
        enter(queue, "b", 5.0)
        back = waiting(queue, "c", None, 5.0)
        assert queue.kept_out == 1
        queue.end("a", 6.0)
        assert back.admitted
        assert queue.kept_out == 0

    def test_not_within_a_call(self) -> None:
        queue, questions = self.three()
        queue.room = 1000.0
        queue.poll(4.0)
        assert queue.under_way == 3
        assert (queue.counted, queue.kept_out) == (1, 2)
        enter(queue, "c", 5.0)  # one that runs beside another
        queue.end_call(questions[2], 6.0)
        assert queue.under_way == 3
        queue.end_call(questions[2], 7.0)
        assert queue.under_way == 2
        waiting(queue, "c", None, 8.0)

    def test_a_question_that_has_grown_drives_out_the_last(self) -> None:
        queue, questions = self.three(3500.0)
        queue.end_call(questions[1], 3.0)
        queue.end_call(questions[2], 3.0)
        queue.answered(questions[0], CallRecord(prompt_tokens=1000, completion_tokens=0))
        queue.answered(questions[0], CallRecord(prompt_tokens=1900, completion_tokens=100))
        queue.poll(4.0)
        enter(queue, "b", 5.0)
        waiting(queue, "c", None, 5.0)

    def test_the_last_one_left_stays_however_large(self) -> None:
        queue, questions = self.three()
        queue.room = 10.0
        queue.poll(4.0)
        for question in questions:
            queue.end_call(question, 5.0)
        enter(queue, "a", 6.0)

    def test_it_keeps_its_place_before_those_that_come_later(self) -> None:
        queue, questions = self.three()
        queue.end_call(questions[2], 3.0)
        queue.room = 2000.0
        queue.poll(3.0)
        late = waiting(queue, "d", None, 4.0, prompt("d"))
        back = waiting(queue, "c", None, 5.0)
        queue.end("a", 6.0)
        assert back.admitted and not late.admitted

    def test_whoever_comes_back_counts_as_large_as_it_was(self) -> None:
        queue, questions = self.three(None)
        queue.answered(questions[2], CallRecord(prompt_tokens=1000, completion_tokens=0))
        queue.answered(questions[2], CallRecord(prompt_tokens=4000, completion_tokens=0))
        queue.end_call(questions[2], 3.0)
        before = queue.tokens
        queue.room = 3000.0
        queue.poll(3.0)
        assert queue.tokens < 2400.0
        queue.room = None
        enter(queue, "c", 4.0)
        assert queue.tokens == pytest.approx(before)

    def test_all_are_in_again_when_everything_passes(self) -> None:
        queue, questions = self.three()
        queue.end_call(questions[2], 3.0)
        queue.room = 1000.0
        queue.poll(3.0)
        back = waiting(queue, "c", None, 4.0)
        queue.room = None
        queue.poll(5.0)
        assert back.admitted
        assert (queue.counted, queue.kept_out) == (3, 0)

    def test_one_that_never_comes_back_is_forgotten(self) -> None:
        queue, questions = self.three()
        queue.end_call(questions[2], 3.0)
        queue.room = 2000.0
        queue.poll(3.0)
        assert queue.knows("c")
        queue.poll(3.0 + queue.idle_s)
        assert not queue.knows("c")

    def test_one_that_ends_is_forgotten(self) -> None:
        queue, questions = self.three()
        queue.end_call(questions[2], 3.0)
        queue.room = 2000.0
        queue.poll(3.0)
        queue.end("c", 4.0)
        assert not queue.knows("c")
        assert queue.kept_out == 0

    def test_a_question_in_one_that_is_set_aside_waits_with_it(self) -> None:
        queue, questions = self.three()
        queue.end_call(questions[2], 3.0)
        queue.room = 2000.0
        queue.poll(3.0)
        assert queue.host("c/inner", ("c",)) == "c"
        # Its parent's turn is its turn, so the two can not wait for each other.
        inner = waiting(queue, queue.host("c/inner", ("c",)), None, 4.0)
        queue.end("a", 5.0)
        assert inner.admitted


class TestPassing:
    """One whose prompt finds no room does not stop those behind it that do."""

    @staticmethod
    def crowd(room: float = 4000.0) -> tuple[AdmissionQueue, Question]:
        """Half of the room is taken, for long, and one waits that needs three quarters."""
        queue = AdmissionQueue(None, room=room, max_wait_s=math.inf)
        enter(queue, "long", prompt=prompt("long", shared_bytes=8000))
        return queue, waiting(queue, "large", None, 1.0, prompt("large", shared_bytes=12_000))

    def test_those_that_fit_go_past(self) -> None:
        queue, large = self.crowd()
        for number in range(19):
            enter(queue, f"small{number}", 1.0 + number / 100, prompt(f"small{number}", shared_bytes=400))
        assert not large.admitted
        assert queue.tokens == pytest.approx(2000 + 19 * 100)
        waiting(queue, "too many", None, 2.0, prompt("too many", shared_bytes=800))

    def test_but_not_those_that_come_much_later(self) -> None:
        queue, large = self.crowd()
        enter(queue, "before", 1.0 + PASSING_S, prompt("before", shared_bytes=400))
        after = waiting(queue, "after", None, 1.1 + PASSING_S, prompt("after", shared_bytes=400))
        queue.end("before", 70.0)
        queue.end("long", 70.0)
        assert large.admitted and after.admitted

    def test_a_large_one_gets_through_a_stream_of_small_ones(self) -> None:
        # Ten a second, each a tenth of the room for a second: there is never room for more.
        queue = AdmissionQueue(None, room=1000.0, max_wait_s=math.inf, idle_s=math.inf)
        large = None
        for tick in range(20 * int(PASSING_S)):
            now = tick / 10
            queue.begin(f"small{tick}", None, now, prompt(f"small{tick}", shared_bytes=400))
            if tick >= 10:
                queue.end(f"small{tick - 10}", now)
            if tick == 20:
                large = queue.begin("large", None, now, prompt("large", shared_bytes=2000))
            if large is not None and large.admitted:
                break
        assert large is not None and large.admitted
        assert PASSING_S - 5 < now < PASSING_S + 5

    def test_one_that_is_larger_than_all_the_room_keeps_nobody_back(self) -> None:
        queue, _ = self.crowd(room=2500.0)
        enter(queue, "after", 10 * PASSING_S, prompt("after", shared_bytes=400))

    def test_one_that_gives_up_keeps_nobody_back(self) -> None:
        queue, large = self.crowd()
        after = waiting(queue, "after", None, 1.1 + PASSING_S, prompt("after", shared_bytes=400))
        queue.leave(large, 100.0)
        assert after.admitted

    def test_an_image_takes_as_much_room_as_an_image(self) -> None:
        def body(text: str, *parts: dict[str, Any]) -> Prompt:
            content = [{"type": "text", "text": text}, *parts]
            return read_prompt(json.dumps({"messages": [{"role": "user", "content": content}]}).encode())

        queue = AdmissionQueue(None, room=200_000)
        enter(queue, "text", prompt=body("x" * 2000))
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 250_000}}
        enter(queue, "image", 1.0, body("What is this?", image))
        assert queue.tokens < 3000


class TestPlaces:
    def test_calls_of_one_waiting_question_go_together(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        one, two = waiting(queue, "q", None, 1.0), waiting(queue, "q", None, 1.0)
        assert one is two
        queue.end("first", 2.0)
        assert one.calls == 2
        assert queue.under_way == 1

    def test_a_question_that_never_ends_falls_idle(self) -> None:
        queue = AdmissionQueue(1, idle_s=30.0)
        left_open = [enter(queue, "left open"), enter(queue, "left open")]
        queue.end_call(left_open[0], 5.0)
        question = waiting(queue, "next", None, 6.0)
        queue.poll(100.0)
        assert not question.admitted, "one call is in flight still"
        queue.end_call(left_open[1], 100.0)
        queue.poll(129.0)
        assert not question.admitted
        queue.poll(130.0)
        assert question.admitted

    def test_an_idle_question_makes_room(self) -> None:
        queue = AdmissionQueue(2, idle_s=30.0)
        idle = enter(queue, "idle")
        enter(queue, "busy")
        queue.end_call(idle, 1.0)
        question = waiting(queue, "next", None, 2.0)
        assert queue.poll(10.0) == pytest.approx(21.0)
        queue.poll(31.0)
        assert question.admitted
        assert not queue.is_in("idle")

    def test_who_makes_a_call_is_not_idle(self) -> None:
        queue = AdmissionQueue(2, idle_s=30.0)
        for name in "ab":
            queue.end_call(enter(queue, name), 1.0)
        queue.end_call(enter(queue, "a", 20.0), 21.0)
        question = waiting(queue, "c", None, 22.0)
        assert queue.poll(22.0) == pytest.approx(9.0)
        queue.poll(31.0)
        assert question.admitted and queue.is_in("a") and not queue.is_in("b")

    def test_a_lost_call_does_not_hold_its_place_for_ever(self) -> None:
        queue = AdmissionQueue(1, max_wait_s=math.inf)
        enter(queue, "lost")
        question = waiting(queue, "next", None, 1.0)
        assert queue.poll(2.0) == pytest.approx(LOST_S - 2.0)
        queue.poll(LOST_S)
        assert question.admitted

    def test_who_is_heard_of_again_is_not_lost(self) -> None:
        queue = AdmissionQueue(2, max_wait_s=math.inf)
        first = enter(queue, "a")
        enter(queue, "a")
        enter(queue, "b", 1.0)
        queue.end_call(first, 100.0)
        question = waiting(queue, "next", None, 101.0)
        queue.poll(LOST_S + 1.0)
        assert question.admitted
        assert queue.is_in("a") and not queue.is_in("b")

    def test_a_call_that_ends_after_its_question_is_not_counted_for_the_next_of_that_name(self) -> None:
        queue = AdmissionQueue(1, idle_s=30.0)
        before = enter(queue, "ticket")
        queue.end("ticket", 1.0)
        again = enter(queue, "ticket", 2.0)
        queue.end_call(before, 3.0)
        queue.leave(before, 3.0)
        assert again.calls == 1
        assert queue.is_in("ticket")

    def test_a_question_in_a_question_goes_on_its_place(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "outer")
        host = queue.host("inner", ("middle", "outer"))
        assert host == "outer"
        enter(queue, host, 1.0)
        assert queue.host("inner", ("unknown",)) == "inner"

    def test_whoever_cancels_is_forgotten(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        gone, next_one = waiting(queue, "gone", None, 1.0), waiting(queue, "next", None, 2.0)
        queue.leave(gone, 3.0)
        queue.end("first", 4.0)
        assert next_one.admitted and not gone.admitted

    def test_whoever_cancels_when_its_turn_has_come_makes_room(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        gone, next_one = waiting(queue, "gone", None, 1.0), waiting(queue, "next", None, 2.0)
        queue.end("first", 3.0)
        assert gone.admitted
        queue.leave(gone, 4.0)
        assert next_one.admitted

    def test_a_smaller_limit_drives_nobody_out(self) -> None:
        queue = AdmissionQueue(3)
        for name in "abc":
            enter(queue, name)
        queue.limit = 1
        enter(queue, "a", 1.0)
        question = waiting(queue, "d", None, 1.0)
        queue.end("a", 2.0)
        queue.end("b", 2.0)
        assert not question.admitted
        queue.end("c", 2.0)
        assert question.admitted


class TestWatch:
    """The callers of the one that has waited longest look after the time."""

    @staticmethod
    def listen(question: Question, there: bool = True) -> list[str]:
        woken: list[str] = []

        def wake() -> bool:
            woken.append(question.prefix_id)
            return there

        question.wake.append(wake)
        return woken

    def test_the_next_is_told_when_it_has_waited_longest(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        oldest, second, third = (waiting(queue, name, None, 1.0) for name in "abc")
        heard = [self.listen(question) for question in (oldest, second, third)]
        queue.leave(oldest, 2.0)
        assert heard == [[], ["b"], []]
        assert not second.admitted
        assert queue.oldest is second

    def test_whoever_is_gone_without_a_word_is_passed_over(self) -> None:
        queue = AdmissionQueue(1)
        enter(queue, "first")
        oldest, gone, third = (waiting(queue, name, None, 1.0) for name in "abc")
        self.listen(gone, there=False)
        heard = self.listen(third)
        queue.leave(oldest, 2.0)
        assert queue.waiting == 1
        assert heard == ["c"]
