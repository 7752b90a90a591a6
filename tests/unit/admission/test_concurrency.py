"""How many calls a server takes, learned from what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.admission.concurrency import MAX_PAUSE_S, PATIENCE, PAUSE_S, ConcurrencyLimit


def test_there_is_no_limit_but_the_most_until_something_is_refused() -> None:
    limit = ConcurrencyLimit(1000)
    assert limit.room(999, 0.0) and not limit.room(1000, 0.0)
    for _ in range(1000):
        limit.answered()
    assert limit.limit == 1000


def test_a_refused_burst_leaves_what_the_server_took() -> None:
    limit = ConcurrencyLimit(1000)
    for under_way in range(255, 63, -1):  # 192 of 256 come back
        limit.refused(under_way, 0.0)
    assert limit.limit == 64


def test_it_grows_with_answers_and_faster_the_longer_nothing_is_refused() -> None:
    limit = ConcurrencyLimit(1000)
    limit.refused(10, 0.0)
    for _ in range(PATIENCE - 1):
        limit.answered()
    slow = limit.limit - 10
    assert 1 < slow < 3
    for _ in range(PATIENCE):
        limit.answered()
    assert limit.limit - 10 - slow > 1.5 * slow
    limit.refused(5, 0.0)
    limit.answered()
    assert limit.limit - 5 < 0.1  # slowly again


def test_one_call_always_may_go() -> None:
    limit = ConcurrencyLimit(8)
    limit.refused(0, 0.0)
    assert limit.limit == 1


def test_a_server_that_is_full_without_us_gets_longer_and_longer_pauses() -> None:
    limit, now, pauses = ConcurrencyLimit(8), 0.0, []
    for _ in range(8):
        limit.refused(0, now)
        pauses.append(limit.paused_until - now)
        assert not limit.room(0, limit.paused_until - 0.001)
        now = limit.paused_until
        assert limit.room(0, now)
    assert pauses == pytest.approx([min(MAX_PAUSE_S, PAUSE_S * 2**i) for i in range(8)])
    limit.answered()
    limit.refused(0, now)
    assert limit.paused_until - now == pytest.approx(PAUSE_S)


def test_a_number_stays_a_number() -> None:
    limit = ConcurrencyLimit(8, adapts=False)
    limit.refused(0, 0.0)
    assert limit.limit == 8 and limit.room(7, 0.0)


@given(st.integers(1, 50), st.lists(st.one_of(st.none(), st.integers(0, 60)), max_size=300))
def test_it_stays_between_one_and_the_most(most: int, script: list[int | None]) -> None:
    limit = ConcurrencyLimit(most)
    for under_way in script:
        if under_way is None:
            limit.answered()
        else:
            limit.refused(under_way, 0.0)
        assert 1 <= limit.limit <= most
