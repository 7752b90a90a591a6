from __future__ import annotations

import random

import pytest

from nat_dynamo_plugin.admission.goodput import FILL, FIRST_BACKOFF, GoodputLimit
from nat_dynamo_plugin.admission.limits import UnderWay
from nat_dynamo_plugin.telemetry.record import CallRecord

CAPACITY = 40_000
PREFILL_MS = 0.05
"""A prompt token computed."""


class Server:
    """Enough of a worker: it computes prompts one after the other, decodes all that run at once, and loses prompts.

    Attributes:
        questions: that want to be under way.
        tokens: of each.
        decode_ms: that a token takes alone; each sequence beside it takes a twentieth more.
        evicts: whether prompts are lost whatever is under way.
    """

    def __init__(
        self,
        limit: GoodputLimit,
        *,
        questions: int = 40,
        tokens: int = 2000,
        output: int = 10,
        decode_ms: float = 0.5,
        tools_s: float = 0.1,
        evicts: bool = False,
    ) -> None:
        self.limit, self.questions, self.tokens, self.output = limit, questions, tokens, output
        self.decode_ms, self.tools_s, self.evicts = decode_ms, tools_s, evicts
        self.now = 0.0
        self.random = random.Random(1)
        self.calls = 0

    @property
    def inside(self) -> int:
        room = self.limit.room
        return self.questions if room is None else max(1, min(self.questions, int(room / self.tokens)))

    def run(self, rounds: int) -> None:
        """As many calls of each question that is inside, one after the other."""
        for _ in range(rounds):
            inside = self.inside
            beyond = max(0.0, 1 - CAPACITY / (inside * self.tokens))
            lost = 1.0 if self.evicts else min(1.0, 1.5 * beyond)
            computed = 100 + round(lost * (self.tokens - 100))
            prefill_s = PREFILL_MS * computed / 1000
            alone_s = prefill_s + self.output * self.decode_ms / 1000
            # What all of them compute, and what they decode side by side.
            round_s = max(alone_s + self.tools_s, inside * prefill_s + alone_s * (1 + 0.05 * inside))
            took_ms = 1000 * max(alone_s, round_s - self.tools_s)
            for chain in range(inside):
                self.now += round_s / inside
                self.calls += 1
                noise = self.random.random()
                ttft_ms = max(1000 * prefill_s, noise * (took_ms - self.output * self.decode_ms))
                self.limit.on_call(
                    CallRecord(
                        session_id=f"{chain}",
                        started_at=self.now - took_ms / 1000,
                        client_total_ms=took_ms,
                        prompt_tokens=self.tokens,
                        cached_tokens=self.tokens - computed,
                        completion_tokens=self.output,
                        server_ttft_ms=ttft_ms,
                        server_total_ms=took_ms,
                    ),
                    UnderWay(inside, inside * self.tokens, self.questions - inside),
                    self.now,
                )


def told(tokens: int = CAPACITY, workers: int = 1) -> GoodputLimit:
    limit = GoodputLimit()
    limit.on_capacity(tokens, workers)
    return limit


def test_holds_back_where_prompts_are_computed_again_and_again() -> None:
    limit = told()
    assert limit.room is None
    server = Server(limit)
    server.run(10)
    assert limit.room == FILL * CAPACITY
    decision = limit.history[0]
    assert decision.holds and decision.questions == 40 and decision.tokens == 80_000
    assert decision.gain is not None and decision.gain > 1.1
    assert decision.waste > 0.1


def test_lets_everything_pass_again_when_all_fit() -> None:
    limit = told()
    server = Server(limit)
    server.run(10)
    assert limit.room is not None
    server.questions = 18
    server.run(20)
    assert limit.room is None
    assert limit.history[0].holds and not limit.history[-1].holds


def test_lets_everything_pass_where_all_fit() -> None:
    limit = told()
    Server(limit, questions=20).run(100)
    assert not limit.history


def test_lets_everything_pass_where_decoding_takes_the_time() -> None:
    limit = told()
    Server(limit, output=800, decode_ms=5.0).run(100)
    assert not limit.history


def test_lets_everything_pass_where_the_few_that_fit_would_be_in_their_tools() -> None:
    limit = told()
    Server(limit, tools_s=60.0).run(100)
    assert not limit.history


@pytest.mark.parametrize("silent", ["cached_tokens", "server_ttft_ms"])
def test_lets_everything_pass_where_answers_do_not_tell(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = told()
    listen = limit.on_call

    def deaf(record: CallRecord, under_way: UnderWay, now: float) -> None:
        setattr(record, silent, None)
        listen(record, under_way, now)

    monkeypatch.setattr(limit, "on_call", deaf)
    Server(limit).run(100)
    assert not limit.history


def test_lets_everything_pass_where_nobody_says_what_the_caches_hold() -> None:
    limit = GoodputLimit()
    Server(limit).run(100)
    assert limit.room is None
    assert not limit.history


def test_gives_up_where_prompts_are_lost_though_few_are_under_way() -> None:
    limit = told()
    server = Server(limit, evicts=True)
    server.run(400)
    assert [decision.holds for decision in limit.history][:2] == [True, False]
    turns = [decision.at for decision in limit.history if decision.holds]
    pauses = [
        after - before.at for before, after in zip([d for d in limit.history if not d.holds], turns[1:], strict=False)
    ]
    assert len(pauses) >= 2
    assert pauses[1] > 1.5 * pauses[0], "each time it waits twice as long before it tries again"


def test_passes_for_a_while_after_it_was_in_vain() -> None:
    limit = told()
    server = Server(limit, evicts=True)
    while len(limit.history) < 2:
        server.run(1)
    before = server.calls
    while len(limit.history) < 3:
        server.run(1)
    assert server.calls - before >= FIRST_BACKOFF - server.questions


def test_room_follows_a_cluster_that_shrinks_and_grows_no_more_than_it_was_found_for() -> None:
    limit = told()
    Server(limit).run(10)
    limit.on_capacity(CAPACITY // 2, 1)
    assert limit.room == FILL * CAPACITY / 2
    limit.on_capacity(2 * CAPACITY, 2)
    assert limit.room == FILL * 2 * CAPACITY


def test_one_question_is_never_held_back() -> None:
    limit = told(1000)
    Server(limit, questions=1).run(100)
    assert not limit.history
