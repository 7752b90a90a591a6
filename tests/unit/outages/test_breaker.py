"""The breaker: opens by rate, lets exactly so many probes through, and hears nothing of what is past."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.outages.breaker import MAX_OPEN_S, Breaker, BreakerSettings, Outcome, Ticket

GOOD, BAD, NEITHER = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEITHER


def breaker(**settings: float) -> Breaker:
    return Breaker(BreakerSettings(**{"min_calls": 10, "window_s": 10.0, "open_s": 2.0, **settings}))  # type: ignore[arg-type]


def call(b: Breaker, outcome: Outcome, now: float) -> None:
    ticket = b.admit(now)
    assert isinstance(ticket, Ticket)
    b.settle(ticket, outcome, now)


def opened(now: float = 0.0, **settings: float) -> Breaker:
    b = breaker(**settings)
    for _ in range(10):
        call(b, BAD, now)
    assert b.is_open
    return b


def test_it_opens_at_the_rate_and_not_before_it_has_seen_enough() -> None:
    b = breaker()
    for _ in range(9):
        call(b, BAD, 0.0)
        assert not b.is_open
    call(b, BAD, 0.0)
    assert b.is_open and b.opened == 1


@pytest.mark.parametrize(("good", "opens"), [(9, True), (10, True), (11, False)])
def test_the_rate_counts_and_not_failures_in_a_row(good: int, opens: bool) -> None:
    b = breaker()
    for i in range(20):
        if b.is_open:
            break
        call(b, GOOD if i < good else BAD, 0.0)
    assert b.is_open is opens


def test_what_is_older_than_the_window_does_not_count() -> None:
    b = breaker()
    for _ in range(9):
        call(b, BAD, 0.0)
    call(b, BAD, 11.0)
    assert not b.is_open and b.failures(11.0) == (1, 1)


def test_what_says_nothing_of_the_server_does_not_count() -> None:
    b = breaker()
    for _ in range(100):
        call(b, NEITHER, 0.0)
    assert b.failures(0.0) == (0, 0) and not b.is_open


def test_open_it_says_when_it_looks_again() -> None:
    b = opened(5.0)
    assert b.admit(5.5) == pytest.approx(1.5)


@pytest.mark.parametrize("probes", [1, 3])
def test_exactly_so_many_probes_go_through(probes: int) -> None:
    b = opened(probes=probes)
    asked = [b.admit(2.0) for _ in range(1000)]
    assert sum(isinstance(each, Ticket) for each in asked) == probes
    assert all(each == 0.0 for each in asked if not isinstance(each, Ticket))


def test_exactly_one_probe_from_many_threads_under_a_lock() -> None:
    b, lock, out, start = opened(), threading.Lock(), [], threading.Barrier(32)

    def ask() -> None:
        start.wait()
        with lock:
            out.append(b.admit(2.0))

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, Ticket) for each in out) == 1


def test_a_probe_that_is_answered_closes_it_and_the_past_is_forgotten() -> None:
    b = opened()
    call(b, GOOD, 2.0)
    assert not b.is_open and b.failures(2.0) == (0, 0)
    call(b, BAD, 2.0)
    assert not b.is_open


def test_all_probes_must_be_answered() -> None:
    b = opened(probes=2)
    first, second = b.admit(2.0), b.admit(2.0)
    assert isinstance(first, Ticket) and isinstance(second, Ticket)
    b.settle(first, GOOD, 2.0)
    assert b.is_open
    assert not isinstance(b.admit(2.0), Ticket)  # no third one
    b.settle(second, GOOD, 2.0)
    assert not b.is_open


def test_each_probe_that_fails_doubles_the_wait_to_a_limit() -> None:
    b, now, waits = opened(), 2.0, []
    for _ in range(8):
        call(b, BAD, now)
        wait = b.admit(now)
        assert isinstance(wait, float)
        waits.append(wait)
        now += wait
    assert waits == pytest.approx([4, 5, 5, 5, 5, 5, 5, 5]) and MAX_OPEN_S == 5


def test_a_probe_that_says_nothing_lets_another_one_through() -> None:
    b = opened()
    call(b, NEITHER, 2.0)
    assert b.is_open and isinstance(b.admit(2.0), Ticket)


def test_late_answers_of_old_calls_change_nothing() -> None:
    b = breaker()
    old = b.admit(0.0)
    assert isinstance(old, Ticket)
    for _ in range(10):
        call(b, BAD, 0.0)
    b.settle(old, GOOD, 1.0)  # open
    assert b.is_open
    call(b, GOOD, 2.0)  # closed by a probe
    b.settle(old, BAD, 3.0)
    assert b.failures(3.0) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(Outcome)), max_size=200), st.integers(1, 4))
def test_it_never_has_more_probes_out_than_it_may_and_always_comes_back(
    script: list[tuple[float, Outcome]], probes: int
) -> None:
    b, now, out = breaker(probes=probes), 0.0, []
    for step, outcome in script:
        now += step
        admitted = b.admit(now)
        if isinstance(admitted, Ticket):
            out.append(admitted)
            probing = [ticket for ticket in out if ticket.is_probe and ticket.era == admitted.era]
            assert len(probing) <= probes
        else:
            assert b.is_open and admitted >= 0.0
        if out and step > 1:
            b.settle(out.pop(0), outcome, now)
    for ticket in out:
        b.settle(ticket, NEITHER, now)
    now += MAX_OPEN_S
    for _ in range(probes):
        call(b, GOOD, now)
    assert not b.is_open
