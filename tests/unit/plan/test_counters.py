from __future__ import annotations

import os
import threading

from nat_dynamo_plugin.plan.counters import CallCounters
from nat_dynamo_plugin.question.scopes import DynamoPrefixContext


def test_counters_are_bounded_in_number() -> None:
    counters = CallCounters(max_chains=3)
    for chain in "abcd":
        assert counters.next_index(chain, "q") == 0
    assert counters.next_index("d", "q") == 1 and len(counters) == 3


def test_counters_forget_what_is_old() -> None:
    now = 0.0
    counters = CallCounters(ttl_s=10, clock=lambda: now)
    assert [counters.next_index("a", "q"), counters.next_index("a", "q"), counters.next_index("b", "q")] == [0, 1, 0]
    now = 10.0
    assert counters.next_index("a", "q") == 2
    now = 20.5
    assert counters.next_index("b", "q") == 0, "b was not called for more than 10 s"
    assert counters.next_index("c", "q") == 0 and len(counters) == 2, "a is gone, too"
    assert counters._chains == {"q": {"b", "c"}}


def test_counters_die_with_their_question() -> None:
    counters = CallCounters()
    for _ in range(2):
        with DynamoPrefixContext.scope("ticket-1"):
            assert [counters.next_index("ticket-1", "ticket-1") for _ in range(3)] == [0, 1, 2]
            assert counters.next_index("ticket-1/agent", "ticket-1") == 0
            assert counters.next_index("other", "ticket-2") in (0, 1)
    assert len(counters) == 1 and counters._chains == {"ticket-2": {"other"}}


def test_a_chain_that_is_forgotten_leaves_nothing_behind() -> None:
    counters = CallCounters(max_chains=2)
    for number in range(10):
        counters.next_index(f"chain-{number}", f"question-{number}")
    assert counters._chains == {"question-8": {"chain-8"}, "question-9": {"chain-9"}}


def test_a_forked_child_can_count_though_its_parent_was_counting() -> None:
    counters = CallCounters()
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with counters._lock:
            holds.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(7 if counters._lock.acquire(blocking=False) else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7


def test_the_end_of_a_question_without_calls_is_none_to_count() -> None:
    counters = CallCounters()
    counters.next_index("s", "q")
    counters.question_ended("unheard of")
    assert counters.next_index("s", "q") == 1
