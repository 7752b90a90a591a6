"""Counts: nothing above a rule, what was reserved is put right, Redis away lets pass."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat_dynamo_plugin.limits.ledger import AWAY_S, Ledger, OpenLedger, Reserved, Short, memory_ledger, redis_ledger
from nat_dynamo_plugin.limits.rules import Charge, Rule, charges

TOKENS = Rule("tokens", 100, 60)
REQUESTS = Rule("requests", 3, 60, ("org",))


def want(tokens: int, org: str = "a") -> tuple[Charge, ...]:
    return charges((TOKENS, REQUESTS), {"org": org}, {"tokens": tokens, "requests": 1})


def taken(ledger: Ledger, wanted: tuple[Charge, ...]) -> Reserved:
    answer = ledger.take(wanted)
    assert isinstance(answer, Reserved)
    return answer


def test_all_rules_have_room_or_nothing_is_taken(limits_clock: Any) -> None:
    ledger = memory_ledger("s")
    for _ in range(3):
        taken(ledger, want(10))
    short = ledger.take(want(10))
    assert isinstance(short, Short) and short.rule == REQUESTS
    assert ledger.window(want(0)[0]).count == 30  # the tokens of the one that was not let in are given back
    taken(ledger, want(70, "b"))
    short = ledger.take(want(1, "c"))
    assert isinstance(short, Short) and short.rule == TOKENS


def test_the_wait_is_as_long_as_it_takes(limits_clock: Any) -> None:
    ledger = memory_ledger("s")
    limits_clock.now += 20
    taken(ledger, want(80))
    short = ledger.take(want(60))
    assert isinstance(short, Short)
    # 40 s until the window turns, then until 80 has faded to 40: half a window.
    assert short.wait_s == pytest.approx(40 + 30)
    limits_clock.now += short.wait_s - 1
    assert isinstance(ledger.take(want(60)), Short)
    limits_clock.now += 1.01
    taken(ledger, want(60))


def test_what_was_really_taken_counts(limits_clock: Any) -> None:
    ledger = memory_ledger("s")
    reserved = taken(ledger, want(90))
    ledger.settle(reserved, want(10))
    assert ledger.window(want(0)[0]).count == 10
    reserved = taken(ledger, want(80))
    ledger.settle(reserved, want(150))
    assert ledger.window(want(0)[0]).count == 160  # above the rule, for it was taken


def test_nothing_is_given_back_to_a_window_that_did_not_give_it(limits_clock: Any) -> None:
    ledger = memory_ledger("s")
    limits_clock.now += 50
    reserved = taken(ledger, want(90))
    limits_clock.now += 20
    before = ledger.window(want(0)[0]).count
    ledger.settle(reserved, want(10))
    assert ledger.window(want(0)[0]).count == before
    reserved = taken(ledger, want(5))
    ledger.settle(reserved, want(25))
    assert ledger.window(want(0)[0]).count == pytest.approx(before + 25)


def test_a_call_above_the_rule_takes_the_whole_window(limits_clock: Any) -> None:
    ledger = memory_ledger("s")
    taken(ledger, want(1000))
    assert ledger.window(want(0)[0]).count == 100
    assert isinstance(ledger.take(want(1)), Short)


def test_anyway_is_counted(limits_clock: Any) -> None:
    ledger = memory_ledger("s")
    taken(ledger, want(100))
    assert isinstance(ledger.take(want(40), anyway=True), Reserved)
    assert ledger.window(want(0)[0]).count == 140


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 100)), max_size=40))
def test_no_window_ever_holds_more_than_the_rule(limits_clock: Any, calls: list[tuple[float, int]]) -> None:
    ledger = memory_ledger("s")
    rule = Rule("tokens", 100, 60)
    for pause, amount in calls:
        limits_clock.now += pause
        wanted = charges((rule,), {}, {"tokens": amount})
        answer = ledger.take(wanted)
        if isinstance(answer, Short):
            limits_clock.now += answer.wait_s + 0.001
            assert isinstance(ledger.take(wanted), Reserved)  # the wait was long enough
        assert ledger.window(wanted[0]).count < 101


class Away:
    """A store in a Redis that comes and goes."""

    blocking = True
    is_away = True

    def take(self, wanted: Any, *, anyway: bool = False) -> Reserved:
        if self.is_away:
            raise redis.ConnectionError("no route to redis://:pass@host")
        return Reserved(tuple(wanted), 1.0)


def test_without_redis_calls_pass_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    store, now = Away(), [0.0]
    ledger = OpenLedger(store, clock=lambda: now[0])  # type: ignore[arg-type]
    for _ in range(5):
        answer = ledger.take(want(10))
        assert isinstance(answer, Reserved) and not answer.charges
        now[0] += AWAY_S / 2
    store.is_away = False
    now[0] += AWAY_S
    answer = ledger.take(want(10))
    assert isinstance(answer, Reserved) and answer.charges
    assert [record.message.split(";")[0].split(" (")[0] for record in caplog.records] == [
        "limits: Redis is away",
        "limits: Redis is back",
    ]


def test_a_redis_that_does_not_answer_is_an_error_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"limits\.redis_url: Redis does not answer") as caught:
        redis_ledger("redis://:hunter2@127.0.0.1:1/0", "s")
    assert "hunter2" not in str(caught.value)
