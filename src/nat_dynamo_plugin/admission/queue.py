"""Who may be under way, who waits, who is next: pure, without I/O and without a clock."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections import OrderedDict

from nat_dynamo_plugin.admission.counted import CountedQuestions
from nat_dynamo_plugin.admission.prompts import Prompt
from nat_dynamo_plugin.admission.questions import UNKNOWN_PROMPT, Question
from nat_dynamo_plugin.plan.serving import MAX_OVERTAKING_S, work_priority
from nat_dynamo_plugin.telemetry.record import CallRecord

IDLE_S = 30.0
"""Seconds without a call after which a question gives its place up: its scope was never closed, or its tool takes
long."""

MAX_WAIT_S = 300.0
"""Seconds of waiting after which the question that has waited longest may go in as one more than the limit."""

PASSING_S = 60.0
"""How much later one may be due and still go past a question whose prompt finds no room yet, in seconds."""

HEAD_START_S = 2.0 * MAX_OVERTAKING_S
"""Seconds of waiting that it is worth to share most of one's first prompt with questions under way: more than any
difference in expected work, which decides among those that share, and among those that do not."""

MOSTLY_SHARED = 0.25
"""Largest share of a first prompt that nobody under way has, for the head start."""

LOST_S = 3600.0
"""Seconds after which a call in flight that nobody has ended is taken for lost."""

LOOK_AHEAD = 64
"""Questions at the front of the queue that are looked at when there is room, so that a long queue costs no more."""


class AdmissionQueue:
    """Who is in, who waits, who is next. It is told the time, and it tells whom to wake.

    **Bounds.** A number bounds the questions under way, also while all of them are inside their tools; `room` bounds
    the tokens of their prompts. A question that is larger than the room goes in when nobody else is. A question keeps
    its place until it ends or has been idle for `idle_s`, so what is stuck, or waits for one that waits, makes room.

    **Setting aside.** Where those that are in come to take more than the room, because it got smaller or they have
    grown, the last of them by the order below are set aside, whole: calls in flight go on, next ones wait their turn.

    **Order.** Shortest expected work first, with ageing: a question is due at its arrival plus `MAX_OVERTAKING_S` less
    `work_priority(work)`, the formula of the router's queue, so it is never overtaken by one that comes
    `MAX_OVERTAKING_S` after it. Those whose prompts begin like those under way have a head start, for a KV cache keeps
    a beginning once. Past one whose prompt finds no room go those that do, unless they are due `PASSING_S` after it;
    one that is larger than all the room keeps nobody back.

    **Overload.** After `max_wait_s` the question that has waited longest goes in as one more than the bounds allow, and
    the next such one when that one has ended. So there is never more than one question too many, however old the
    backlog, and nobody waits for ever.
    """

    def __init__(
        self,
        limit: int | None,
        *,
        room: float | None = None,
        idle_s: float = IDLE_S,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        """Open, with no one inside.

        Args:
            limit: questions under way at once, 1 or more; `None` for any number.
            room: tokens that their prompts may have together, what they share counted once; `None` for any number.
            idle_s: see `IDLE_S`.
            max_wait_s: see `MAX_WAIT_S`.
        """
        self.limit = limit
        self.room = room
        self.idle_s = idle_s
        self.max_wait_s = max_wait_s
        self._in: OrderedDict[str, Question] = OrderedDict()  # by when they were last heard of
        self._idle: OrderedDict[str, Question] = OrderedDict()  # those of them without a call in flight
        self._waiting: OrderedDict[str, Question] = OrderedDict()  # by when they came
        self._aside: OrderedDict[str, Question] = OrderedDict()  # by when they were last heard of
        self._leaving: dict[str, Question] = {}  # those in that are set aside when their calls have ended
        self._counted = CountedQuestions()
        # By who is next. Moving the rest of a list is faster than any tree: 40 µs for 100,000 that wait.
        self._line: list[tuple[tuple[float, int], Question]] = []
        self._extra: Question | None = None
        self._watching: Question | None = None
        self._count = itertools.count()

    def emptied(self) -> AdmissionQueue:
        """A queue like this one with nobody in it, that knows as much of prompts."""
        queue = AdmissionQueue(self.limit, room=self.room, idle_s=self.idle_s, max_wait_s=self.max_wait_s)
        queue._counted.set = self._counted.set.emptied()
        return queue

    @property
    def under_way(self) -> int:
        """Questions that are in."""
        return len(self._in)

    @property
    def tokens(self) -> float:
        """Tokens of the prompts of questions that are in, what they share counted once, less the one too many."""
        return self._counted.tokens

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def counted(self) -> int:
        """Questions that are in and whose tokens are counted."""
        return len(self._counted)

    @property
    def kept_out(self) -> int:
        """Questions that wait, are set aside or are to be."""
        return len(self._waiting) + len(self._aside) + len(self._leaving)

    @property
    def oldest(self) -> Question | None:
        """The one that has waited longest."""
        return next(iter(self._waiting.values()), None)

    def is_in(self, prefix_id: str) -> bool:
        """Whether a question is under way."""
        return prefix_id in self._in

    def knows(self, prefix_id: str) -> bool:
        """Whether a question is under way, waits or is set aside, so that its first prompt is known."""
        return any(prefix_id in questions for questions in (self._in, self._waiting, self._aside))

    def host(self, prefix_id: str, ancestors: tuple[str, ...]) -> str:
        """On whose place a call goes: the first of its question and the questions around it that is in, or was."""
        if prefix_id not in self._in and prefix_id not in self._aside:
            for outer in ancestors:
                if outer in self._in or outer in self._aside:
                    return outer
        return prefix_id

    def begin(self, prefix_id: str, work_tokens: float | None, now: float, prompt: Prompt = UNKNOWN_PROMPT) -> Question:
        """A call wants to start; it may if its question is `admitted`, otherwise it has to wait for that.

        Args:
            prefix_id: on whose place it goes; see `host`.
            work_tokens: expected output tokens of the whole question, if known.
            now: seconds, of any clock that does not go back.
            prompt: the call's; only that of a question's first call counts.
        """
        question = self._in.get(prefix_id)
        if question is not None:
            if not question.calls:
                del self._idle[prefix_id]
            question.calls += 1
            question.heard = now
            self._in.move_to_end(prefix_id)
            return question
        self._drop_idle(now)
        question = self._waiting.get(prefix_id)
        aside = self._aside.pop(prefix_id, None)
        if aside is not None:
            aside.since = now
            self._enqueue(question := aside)
        elif question is None:
            due = now + MAX_OVERTAKING_S - (work_priority(work_tokens) if work_tokens is not None else 0)
            question = Question(prefix_id, prompt, now, (due, next(self._count)))
            self._enqueue(question)
        question.calls += 1
        self.admit(now)
        return question

    def answered(self, question: Question, record: CallRecord) -> None:
        """Learn from the answer to a call of a question that is in."""
        if self._holds(question):
            self._counted.answered(question, record)

    def end_call(self, question: Question, now: float) -> None:
        """A call that was let in has been answered or has failed."""
        if question.calls and self._holds(question):
            question.calls -= 1
            question.heard = now
            self._in.move_to_end(question.prefix_id)
            if not question.calls:
                self._idle[question.prefix_id] = question
                if self._leaving.pop(question.prefix_id, None) is not None:
                    self._put_aside(question)

    def end(self, prefix_id: str, now: float) -> None:
        """A question is done and gives its place up. Calls that are still in flight no longer count."""
        question = self._in.get(prefix_id)
        if question is not None:
            self._remove(question)
            self.admit(now)
        self._aside.pop(prefix_id, None)

    def leave(self, question: Question, now: float) -> None:
        """A waiting call gives up, whether its turn has come by now or not."""
        if self._holds(question):
            self.end_call(question, now)
            if not question.calls:
                self.end(question.prefix_id, now)
        elif self._waiting.get(question.prefix_id) is question:
            question.calls -= 1
            if not question.calls:
                self._unqueue(question)
                self.admit(now)

    def push_in(self, question: Question, now: float) -> None:
        """Let in one that waits and can not, whatever the bounds."""
        if self._waiting.get(question.prefix_id) is question:
            self._let_in(question, now)
            self._hand_over_watch()

    def admit(self, now: float) -> None:
        """Set aside whoever is too many, and let in whoever may go in now."""
        self._set_aside()
        while self._waiting:
            question = self._first_that_fits()
            if question is None:
                question = self.oldest
                assert question is not None
                if self._extra is not None or now - question.since < self.max_wait_s:
                    break
                self._extra = question
            self._let_in(question, now)
        self._hand_over_watch()

    def poll(self, now: float) -> float:
        """Drop who is idle, let in whoever may go in, and say in how many seconds to look again; `inf` for never."""
        self._drop_idle(now)
        self.admit(now)
        oldest = self.oldest
        if oldest is None:
            return math.inf
        times = [place.heard + self.idle_s for place in itertools.islice(self._idle.values(), 1)]
        times += [place.heard + self._lost_s for place in itertools.islice(self._in.values(), 1)]
        late = oldest.since + self.max_wait_s
        if late > now:  # one that is late already waits for somebody's end, not for a time
            times.append(late)
        return max(0.0, min(times, default=math.inf) - now)

    @property
    def _lost_s(self) -> float:
        return max(LOST_S, self.idle_s)

    def _holds(self, question: Question) -> bool:
        # The id may have been opened again meanwhile.
        return self._in.get(question.prefix_id) is question

    def _first_that_fits(self) -> Question | None:
        """Who goes in next within the bounds; `None` if nobody may."""
        counted, held, room = len(self._counted), self._counted.set, self.room
        if self.limit is not None and counted >= self.limit:
            return None
        if room is not None and counted and held.tokens >= room:
            return None
        front = self._front()
        if room is None or not counted:
            return front[0]
        last = math.inf
        for question in front:
            if question.order[0] <= last:
                cost = held.cost(question.prompt, question.grown)
                if held.tokens + cost <= room:
                    return question
                if cost <= room:
                    last = min(last, question.order[0] + PASSING_S)
        return None

    def _front(self) -> list[Question]:
        """The first ones, those before the others that share most of their prompts with who is in."""
        held = self._counted.set
        ranked = []
        for (due, number), question in self._line[:LOOK_AHEAD]:
            size = question.prompt.size
            if size and held.missing(question.prompt) <= MOSTLY_SHARED * size:
                due -= HEAD_START_S
            ranked.append((due, number, question))
        return [question for _, _, question in sorted(ranked)]

    def _let_in(self, question: Question, now: float) -> None:
        self._unqueue(question)
        question.admitted = True
        question.heard = now
        self._in[question.prefix_id] = question
        if question is not self._extra:
            self._counted.add(question)
        # Whoever is gone without a word (its event loop was closed) ends no call.
        question.calls -= sum(not wake() for wake in question.wake)
        question.wake.clear()
        if not question.calls:
            self._remove(question)

    def _unqueue(self, question: Question) -> None:
        del self._waiting[question.prefix_id]
        del self._line[bisect_left(self._line, (question.order,))]

    def _remove(self, question: Question) -> None:
        del self._in[question.prefix_id]
        self._idle.pop(question.prefix_id, None)
        self._leaving.pop(question.prefix_id, None)
        if question is self._extra:
            self._extra = None
        self._counted.remove(question)

    def _enqueue(self, question: Question) -> None:
        question.admitted = False
        self._waiting[question.prefix_id] = question
        insort(self._line, (question.order, question))

    def _set_aside(self) -> None:
        """See that those whose tokens are counted have room, but for one."""
        if self.room is None:
            while self._leaving:
                self._counted.add(self._leaving.popitem()[1])
            return
        while self._counted.tokens > self.room and len(self._counted) > 1:
            if (question := self._counted.pop_last()).calls:
                self._leaving[question.prefix_id] = question
            else:
                self._put_aside(question)

    def _put_aside(self, question: Question) -> None:
        self._remove(question)
        self._aside[question.prefix_id] = question

    def _drop_idle(self, now: float) -> None:
        for places, after_s in ((self._idle, self.idle_s), (self._in, self._lost_s)):
            while places:
                question = next(iter(places.values()))
                if now - question.heard < after_s:
                    break
                self._remove(question)
        while self._aside and now - next(iter(self._aside.values())).heard >= self.idle_s:
            self._aside.popitem(last=False)

    def _hand_over_watch(self) -> None:
        """See that somebody looks after the time: the callers of the one that has waited longest."""
        while (oldest := self.oldest) is not self._watching:
            self._watching = oldest
            if oldest is not None:
                there = [wake for wake in oldest.wake if wake()]
                oldest.calls -= len(oldest.wake) - len(there)
                oldest.wake = there
                if not oldest.calls:
                    self._unqueue(oldest)
