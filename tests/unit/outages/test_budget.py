"""The retry budget: a share of the calls, besides so many a second."""

from __future__ import annotations

from nat_dynamo_plugin.outages.budget import MAX_BALANCE, RATE, RESERVE, RetryBudget


def taken(budget: RetryBudget, now: float, most: int = 10_000) -> int:
    return next((i for i in range(most) if not budget.take(now)), most)


def test_there_is_a_reserve_in_the_beginning_which_comes_back_with_time() -> None:
    budget = RetryBudget(0.2, 0.0)
    assert taken(budget, 0.0) == RESERVE
    assert taken(budget, 1.0) == RATE
    assert taken(budget, 1e6) == RESERVE


def test_each_call_adds_its_share() -> None:
    budget = RetryBudget(0.25, 0.0)
    taken(budget, 0.0)
    for _ in range(40):
        budget.call()
    assert taken(budget, 0.0) == 10


def test_what_is_saved_up_has_an_end() -> None:
    budget = RetryBudget(0.5, 0.0)
    for _ in range(100_000):
        budget.call()
    assert MAX_BALANCE <= taken(budget, 0.0) <= MAX_BALANCE + 1


def test_a_total_outage_adds_little() -> None:
    budget, retries = RetryBudget(0.2, 0.0), 0
    for call in range(5000):  # 200 callers, 25 calls each, in 10 s, each of which would retry ten times
        now = call / 500
        budget.call()
        retries += sum(budget.take(now) for _ in range(10))
    assert retries <= 0.2 * 5000 + RESERVE + 10 * RATE + 1
