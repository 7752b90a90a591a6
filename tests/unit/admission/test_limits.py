from __future__ import annotations

import random
from itertools import pairwise

import pytest

from nat_dynamo_plugin.admission.limits import FILL, FIRST_LIMIT, MOST_GROWTH, AdaptiveLimit, UnderWay
from nat_dynamo_plugin.telemetry.record import CallRecord

QUESTION = 3000.0
"""Tokens of a question."""


class Server:
    """Enough of a server: from `room` questions on it loses cached tokens and gets late.

    Every question under way makes calls one after the other; time is virtual.
    """

    def __init__(self, room: int, limits: list[AdaptiveLimit], now: float = 1000.0) -> None:
        self.room = room
        self.limits = limits
        self.under_way = [0] * len(limits)
        self.now = now
        self.random = random.Random(1)

    def run(self, rounds: int, demand: int = 10_000) -> None:
        for _ in range(rounds):
            self.now += 0.3
            for client, limit in enumerate(self.limits):
                # A tenth of the questions end in a round; the gate lets in what the limit allows.
                kept = self.under_way[client] - round(self.under_way[client] * 0.1)
                self.under_way[client] = max(1, kept, min(allowed(limit), demand))
            total = sum(self.under_way)
            crowding = max(0.0, 1 - self.room / total)
            for client, limit in enumerate(self.limits):
                for chain in range(self.under_way[client]):
                    self.call(client, limit, chain, crowding, demand)

    def call(self, client: int, limit: AdaptiveLimit, chain: int, crowding: float, demand: int) -> None:
        lost = crowding * self.random.uniform(0.5, 1.5)
        questions = self.under_way[client]
        limit.on_call(
            CallRecord(
                session_id=f"{client}-{chain}",
                started_at=self.now - 0.29,
                client_total_ms=280.0,
                prompt_tokens=5000,
                cached_tokens=round(5000 * max(0.0, 1 - lost)),
                server_ttft_ms=10.0 + 2000 * crowding,
                server_total_ms=250.0 + 2000 * crowding,
            ),
            UnderWay(questions, questions * QUESTION, questions >= allowed(limit) and demand > allowed(limit)),
            self.now,
        )


def allowed(limit: AdaptiveLimit) -> int:
    """Questions that may be under way."""
    if limit.room is None:
        assert limit.limit is not None
        return limit.limit
    return int(limit.room / QUESTION)


def mean_allowed(server: Server, limit: AdaptiveLimit, rounds: int) -> float:
    total = 0
    for _ in range(rounds):
        server.run(1)
        total += allowed(limit)
    return total / rounds


def told(questions: float) -> AdaptiveLimit:
    """A limit that begins with room for so many questions."""
    limit = AdaptiveLimit()
    limit.on_capacity(round(questions * QUESTION / FILL))
    return limit


@pytest.mark.parametrize("room", [4, 12, 40, 150])
def test_finds_the_room_there_is_though_nobody_says_so(room: int) -> None:
    limit = AdaptiveLimit()
    server = Server(room, [limit])
    server.run(150)
    assert 0.6 * room <= mean_allowed(server, limit, 100) <= 1.5 * room


@pytest.mark.parametrize(("before", "after"), [(60, 30), (30, 60)])
def test_follows_a_server_that_changes(before: int, after: int) -> None:
    limit = AdaptiveLimit()
    server = Server(before, [limit])
    server.run(150)
    server.room = after
    server.run(60)
    assert 0.6 * after <= mean_allowed(server, limit, 60) <= 1.5 * after


def test_begins_with_what_the_server_says_it_holds() -> None:
    limit = AdaptiveLimit()
    assert (limit.limit, limit.room) == (FIRST_LIMIT, None)
    limit.on_capacity(100_000)
    assert (limit.limit, limit.room) == (None, FILL * 100_000)


def test_stays_about_where_the_server_says_its_room_ends() -> None:
    limit = told(40)
    server = Server(1000, [limit])
    server.run(20)
    assert 40 <= allowed(limit) <= 42
    server.run(2000)
    assert allowed(limit) > 60, "what lower tiers hold is never found"


def test_room_halves_with_the_workers_at_once() -> None:
    limit = told(40)
    assert limit.room is not None
    room = limit.room
    limit.on_capacity(round(20 * QUESTION / FILL))
    assert limit.room == pytest.approx(room / 2)


def test_room_for_new_workers_is_filled_in_a_few_windows() -> None:
    limit = told(40)
    limit.on_capacity(round(80 * QUESTION / FILL))
    assert 39 <= allowed(limit) <= 40
    server = Server(1000, [limit])
    seen = []
    for _ in range(8):
        server.run(1)
        seen.append(allowed(limit))
    assert seen == sorted(seen)
    assert seen[0] < 60
    assert 78 <= seen[-1] <= 82


def test_being_told_the_same_again_changes_nothing() -> None:
    limit = told(40)
    server = Server(20, [limit])
    server.run(30)
    room = limit.room
    limit.on_capacity(round(40 * QUESTION / FILL))
    assert limit.room == room


def test_clients_that_share_a_server_come_to_equal_room() -> None:
    # The second comes when the first has all of it.
    one, two = told(40), told(40)
    alone = Server(40, [one])
    alone.run(50)
    server = Server(40, [one, two], now=alone.now)
    server.run(150)
    sums = [0, 0]
    for _ in range(150):
        server.run(1)
        sums = [sums[0] + allowed(one), sums[1] + allowed(two)]
    jain = sum(sums) ** 2 / (2 * sum(s * s for s in sums))
    assert jain >= 0.9


def test_room_that_is_not_used_does_not_grow() -> None:
    limit = AdaptiveLimit()
    Server(1000, [limit]).run(200, demand=3)
    assert limit.limit == FIRST_LIMIT


def test_a_call_that_another_worker_answered_is_no_congestion() -> None:
    # Round-robin routers send chains to workers that never saw their prompts, crowded or not.
    limit = AdaptiveLimit()
    for number in range(3000):
        limit.on_call(
            CallRecord(
                session_id=f"s{number % 50}",
                started_at=number * 0.01,
                client_total_ms=5.0,
                # Each chain makes two calls on a worker and moves on.
                worker_id=number // 100 % 4,
                prompt_tokens=1000,
                cached_tokens=1000 if number // 50 % 2 else 0,
                server_ttft_ms=10.0,
                server_total_ms=100.0,
            ),
            UnderWay(allowed(limit), allowed(limit) * QUESTION, True),
            number * 0.01,
        )
    assert allowed(limit) > 4 * FIRST_LIMIT


def test_a_server_that_says_nothing_leaves_the_limit_alone() -> None:
    limit = AdaptiveLimit()
    for number in range(500):
        limit.on_call(CallRecord(session_id="s", started_at=float(number)), UnderWay(99, 9e5, True), float(number))
    assert limit.limit == FIRST_LIMIT


def windows(limit: AdaptiveLimit, count: int, *, lost: float = 0.0, ttft_ms: float = 10.0) -> list[float]:
    """Room in questions after each of `count` windows in which every call lost this share of its cached tokens."""
    seen = []
    for _ in range(count):
        before = len(limit.history)
        number = 0
        while len(limit.history) == before:
            number += 1
            at = limit.history[-1].at + number if limit.history else 1000.0 + number
            limit.on_call(
                CallRecord(
                    session_id=f"s{number % 5}",
                    started_at=at - 0.1,
                    client_total_ms=50.0,
                    prompt_tokens=5000,
                    cached_tokens=round(5000 * (1 - lost)),
                    server_ttft_ms=ttft_ms,
                    server_total_ms=ttft_ms + 100.0,
                ),
                UnderWay(allowed(limit), allowed(limit) * QUESTION, True),
                at,
            )
        assert limit.room is not None
        seen.append(limit.room / QUESTION)
    return seen


def test_grows_faster_the_longer_there_is_no_congestion() -> None:
    seen = windows(AdaptiveLimit(), 10)
    steps = [b - a for a, b in pairwise(seen)]
    assert seen == sorted(seen)
    assert max(steps[-3:]) > 2 * max(steps[:3])
    assert all(b <= MOST_GROWTH * a + 1 for a, b in pairwise(seen))


# What is late for long is usual in the end.
@pytest.mark.parametrize(("lost", "ttft_ms", "count"), [(0.06, 10.0, 4), (0.0, 30.0, 2)])
def test_where_crowding_begins_it_grows_no_more_than_it_must(lost: float, ttft_ms: float, count: int) -> None:
    limit = AdaptiveLimit()
    before = windows(limit, 8)[-1]
    seen = windows(limit, count, lost=lost, ttft_ms=ttft_ms)
    assert before <= seen[0] <= seen[-1] <= before + 2


def test_comes_back_to_where_it_was_cut_and_stays_around_there() -> None:
    limit = AdaptiveLimit()
    peak = windows(limit, 12)[-1]
    low = windows(limit, 1, lost=0.4)[0]
    assert 0.75 * peak <= low < 0.85 * peak
    seen = windows(limit, 9)
    assert seen[6] >= 0.95 * peak
    assert seen[6] <= 1.1 * peak
