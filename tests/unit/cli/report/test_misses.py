"""What was computed again, and what it is put down to."""

from __future__ import annotations

import pytest

from nat_dynamo_plugin.cli.report.causes import Served, advice, headline
from nat_dynamo_plugin.cli.report.misses import Miss, findings, misses, ms_per_token, tolerance, ttft_ms, waits_ms
from nat_dynamo_plugin.cli.report.prompts import Change

from .making import SYSTEM, message, prompt, record, sent

USER = message("user", "u" * 400)
REPLY = message("assistant", "a" * 400)


def told(found: list[Miss]) -> list[tuple[object, int, int]]:
    return [(miss.cause, miss.call.number, round(miss.tokens)) for miss in found]


def test_nothing_is_lost_where_all_but_a_rest_of_blocks_came_out_of_the_cache() -> None:
    calls = [sent(1), sent(2, prompt_tokens=1200, cached_tokens=960), sent(3, prompt_tokens=1300, cached_tokens=1170)]
    assert misses(calls) == []


def test_a_loss_is_what_the_call_before_had_sent_and_was_not_cached() -> None:
    assert tolerance(1000) == 84
    calls = [sent(1), sent(2, prompt_tokens=1200, cached_tokens=900)]
    assert told(misses(calls)) == [(Served.UNKNOWN, 2, 100)]


@pytest.mark.parametrize(
    ("known", "cause"),
    [
        ({"worker_id": 8}, Served.MOVED),
        ({"worker_id": None}, Served.UNKNOWN),
        ({"started_at": 101.05}, Served.OVERLAPPED),
        ({"started_at": 101.05, "worker_id": 8}, Served.OVERLAPPED),
    ],
)
def test_how_a_call_was_served_tells_why(known: dict[str, object], cause: Served) -> None:
    calls = [sent(1), sent(2, **{"prompt_tokens": 1200, "cached_tokens": 0} | known)]
    assert told(misses(calls)) == [(cause, 2, 1000)]


def test_the_same_prompt_on_the_same_worker_was_forgotten() -> None:
    calls = [
        sent(1, prompt(message("system", SYSTEM), USER)),
        sent(2, prompt(message("system", SYSTEM), USER, REPLY), prompt_tokens=1200, cached_tokens=0),
    ]
    assert told(misses(calls)) == [(Served.FORGOTTEN, 2, 1000)]


def test_a_shorter_prompt_without_a_recording() -> None:
    calls = [sent(1), sent(2, prompt_tokens=600, cached_tokens=100)]
    assert told(misses(calls)) == [(Served.SHRANK, 2, 500)]


def test_failed_calls_and_other_chains_count_for_nothing() -> None:
    calls = [
        sent(1),
        sent(2, error="boom", cached_tokens=0),
        sent(3, session_id="other", cached_tokens=0),
        sent(4, prompt_tokens=1200, cached_tokens=1000),
    ]
    assert misses(calls) == []


def clock(second: int, *more: dict[str, str], tools: tuple[str, ...] = ()) -> object:
    return prompt(message("system", f"It is 10:00:{second:02}. {SYSTEM}"), USER, *more, tools=tools)


def test_a_clock_costs_all_that_stands_behind_it() -> None:
    calls = [
        sent(1, clock(1)),  # type: ignore[arg-type]
        sent(2, clock(2, REPLY), prompt_tokens=1500, cached_tokens=0),  # type: ignore[arg-type]
    ]
    (miss,) = misses(calls)
    assert (miss.cause, miss.found and miss.found.what, miss.between) == (Change.VARIABLE, "a clock", False)
    size = calls[0].prompt.size  # type: ignore[union-attr]
    assert miss.tokens == pytest.approx(1000 * (1 - 13 / size))
    assert miss.measured


def test_what_was_lost_before_the_difference_is_put_down_to_how_it_was_served() -> None:
    late = [message("system", SYSTEM + ("x" * 40 + " ") * 20 + f"It is 10:00:0{n}.") for n in (1, 2)]
    calls = [
        sent(1, prompt(late[0], USER)),
        sent(2, prompt(late[1], USER, REPLY), prompt_tokens=1500, cached_tokens=0, worker_id=8),
    ]
    changed, moved = misses(calls)
    assert (changed.cause, moved.cause) == (Change.VARIABLE, Served.MOVED)
    assert changed.tokens + moved.tokens == pytest.approx(1000)
    assert moved.tokens == pytest.approx(1000 * (len(late[0]["content"]) - 2) / calls[0].prompt.size)  # type: ignore[union-attr]


def test_what_was_cached_all_the_same_is_no_loss() -> None:
    calls = [
        sent(1, clock(1)),  # type: ignore[arg-type]
        sent(2, clock(2, REPLY), prompt_tokens=1500, cached_tokens=700),  # type: ignore[arg-type]
    ]
    assert [miss.tokens for miss in misses(calls)] == [300]


def test_of_a_longer_prompt_only_what_the_next_one_has_can_be_lost() -> None:
    calls = [
        sent(1, prompt(message("system", SYSTEM), USER, REPLY)),
        sent(2, prompt(message("system", SYSTEM), USER), prompt_tokens=600, cached_tokens=560),
    ]
    assert misses(calls) == []


def test_without_counts_of_the_server_the_difference_is_an_estimate() -> None:
    calls = [
        sent(1, clock(1), cached_tokens=None),  # type: ignore[arg-type]
        sent(2, clock(2, REPLY), cached_tokens=None),  # type: ignore[arg-type]
    ]
    (miss,) = misses(calls)
    assert not miss.measured and miss.cause is Change.VARIABLE


def test_a_call_is_compared_with_the_one_that_it_continues() -> None:
    main, side = message("system", SYSTEM), message("system", "Rate this answer from one to ten, strictly.")
    calls = [
        sent(1, prompt(main, USER)),
        sent(2, prompt(side, REPLY), prompt_tokens=300, cached_tokens=0),
        sent(3, prompt(main, USER, REPLY), prompt_tokens=1200, cached_tokens=0),
    ]
    (miss,) = misses(calls)
    assert (miss.cause, miss.before.number, miss.tokens) == (Served.FORGOTTEN, 1, 1000)


def question(number: int, second: int = 0, **known: object) -> object:
    text = message("user", f"{number}" * 100)
    lead = message("system", f"It is 10:00:{second:02}. {SYSTEM}")
    return sent(
        1, prompt(lead, text, tools=("a", "b")), question=f"q{number}", started_at=100.0 + number, **known
    )  # fmt: skip


def test_questions_of_a_kind_share_what_they_begin_with() -> None:
    calls = [
        question(1),
        question(2),
        question(3, cached_tokens=0, worker_id=8),
        question(4, worker_id=8, cached_tokens=900),
    ]
    found = misses(calls)  # type: ignore[arg-type]
    assert [(miss.cause, miss.call.question, miss.before.question, miss.between) for miss in found] == [
        (Served.FORGOTTEN, "q2", "q1", True),
        (Served.COLD, "q3", "q2", True),
    ]
    lead = calls[0].prompt.lead_size / calls[0].prompt.size  # type: ignore[attr-defined]
    assert found[0].tokens == pytest.approx(1000 * lead)


def test_a_clock_between_questions() -> None:
    found = misses([question(1, 1), question(2, 2)])  # type: ignore[list-item]
    assert [(miss.cause, miss.between) for miss in found] == [(Change.VARIABLE, True)]


def test_tools_in_another_order_between_questions() -> None:
    lead = message("system", SYSTEM)
    calls = [
        sent(1, prompt(lead, USER, tools=("a", "b"))),
        sent(1, prompt(lead, USER, tools=("b", "a")), question="q2", started_at=110.0, cached_tokens=512),
        sent(1, prompt(lead, USER, tools=("a", "c")), question="q3", started_at=120.0),
    ]
    (miss,) = misses(calls)
    assert (miss.cause, miss.call.question) == (Change.TOOLS_ORDER, "q2")


def test_findings_are_added_up_by_cause_the_dearest_first() -> None:
    calls = [
        sent(1), sent(2, prompt_tokens=1200, cached_tokens=0, worker_id=8),
        sent(3, prompt_tokens=1300, cached_tokens=1200),
        sent(1, question="q2"), sent(2, question="q2", prompt_tokens=1200, cached_tokens=0),
        sent(3, question="q2", prompt_tokens=1300, cached_tokens=700),
    ]  # fmt: skip
    unknown, moved = findings(misses(calls))
    assert (unknown.cause, unknown.tokens, unknown.questions, len(unknown.misses)) == (Served.UNKNOWN, 1500, 1, 2)
    assert unknown.misses[0].tokens == 1000
    assert (moved.cause, moved.tokens) == (Served.MOVED, 1000)


@pytest.mark.parametrize("cause", [*Served, *(change for change in Change if change is not Change.VARIABLE)])
def test_each_cause_has_a_name_and_says_what_to_do(cause: Served | Change) -> None:
    assert headline(cause) and advice(cause).endswith(".")


def test_what_to_move_is_named() -> None:
    (miss,) = misses([sent(1, clock(1)), sent(2, clock(2, REPLY))])  # type: ignore[arg-type]
    assert headline(miss.cause, miss.found) == "A clock in the system message"
    assert "out of the system message to the end of the last message" in advice(miss.cause, miss.found)


def test_what_a_token_costs() -> None:
    calls = [sent(n, prompt_tokens=n * 100, cached_tokens=0, server_ttft_ms=5 + n * 100 * 0.2) for n in range(1, 41)]
    assert ms_per_token(calls) == pytest.approx(0.2)
    assert ms_per_token(calls[:10]) is None
    noise = [sent(n, prompt_tokens=n * 100, cached_tokens=0, server_ttft_ms=n * 7919 % 101) for n in range(1, 41)]
    assert ms_per_token(noise) is None


def test_the_clients_time_to_first_token_without_its_waits() -> None:
    waited = record(
        server_ttft_ms=None, client_ttft_ms=500.0, gate_wait_ms=100.0, retry_wait_ms=50.0, slot_wait_ms=20.0,
        outage_wait_ms=30.0,
    )  # fmt: skip
    assert (waits_ms(waited), ttft_ms(waited)) == (200, 300)
    assert ttft_ms(record(server_ttft_ms=12.0, client_ttft_ms=500.0)) == 12
