from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.question.hints import (
    CallPrediction,
    DynamoHints,
    PrefixHints,
    PrefixLevel,
    ScopeHints,
    iat_level,
    iat_ms,
    osl_level,
    osl_tokens,
    parse_level_or_number,
    resolve_hints,
)

CONFIG = PrefixHints(total_requests=10, osl=PrefixLevel.MEDIUM, iat=PrefixLevel.MEDIUM)


def test_levels_and_their_numbers_agree() -> None:
    for level in PrefixLevel:
        assert osl_level(osl_tokens(level)) is level
        assert iat_level(iat_ms(level)) is level


@given(st.integers(min_value=1, max_value=2**32 - 1), st.integers(min_value=1, max_value=2**32 - 1))
def test_levels_grow_with_the_number(a: int, b: int) -> None:
    order = list(PrefixLevel)
    low, high = sorted((a, b))
    assert order.index(osl_level(low)) <= order.index(osl_level(high))
    assert order.index(iat_level(low)) <= order.index(iat_level(high))


@pytest.mark.parametrize(
    ("value", "parsed"), [("low", PrefixLevel.LOW), (" High ", PrefixLevel.HIGH), (7, 7), ("512", 512), (5.0, 5)]
)
def test_levels_in_any_case_and_numbers(value: object, parsed: object) -> None:
    assert parse_level_or_number("osl", value) == parsed


@pytest.mark.parametrize("value", ["medum", 0, -1, 1.5, True, None, [], 2**32])
def test_bad_values_are_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"prefix_osl=.*LOW, MEDIUM, HIGH"):
        parse_level_or_number("prefix_osl", value)


class TestScope:
    def test_inner_scope_keeps_what_it_leaves_out(self) -> None:
        with DynamoHints.scope(total_requests=4, osl="HIGH"):
            with DynamoHints.scope(osl=64, priority=3):
                assert DynamoHints.current() == ScopeHints(total_requests=4, osl=64, priority=3)
            assert DynamoHints.current() == ScopeHints(total_requests=4, osl=PrefixLevel.HIGH)
        assert DynamoHints.current() is None

    @pytest.mark.parametrize(
        "bad",
        [
            {"total_requests": 0},
            {"total_requests": True},
            {"total_requests": 2.5},
            {"total_requests": 2.0},
            {"total_requests": "3"},
            {"osl": "big"},
            {"osl": True},
            {"iat": -1},
            {"priority": 2**31},
            {"priority": -(2**31) - 1},
            {"priority": 1.5},
            {"priority": True},
            {"priority": "1"},
            {"kind": ""},
            {"kind": 7},
        ],
    )
    def test_what_is_no_such_number_is_refused(self, bad: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=f"{next(iter(bad))}="), DynamoHints.scope(**bad):  # type: ignore[arg-type]
            pass

    def test_any_whole_number_is_taken(self) -> None:
        class Whole:
            def __index__(self) -> int:
                return 3

        with DynamoHints.scope(total_requests=Whole(), priority=Whole()):  # type: ignore[arg-type]
            assert DynamoHints.current() == ScopeHints(total_requests=3, priority=3)

    async def test_concurrent_questions_keep_their_own(self) -> None:
        async def question(total: int) -> int | None:
            with DynamoHints.scope(total_requests=total):
                await asyncio.sleep(0)
                current = DynamoHints.current()
                return current.total_requests if current else None

        totals = range(1, 201)
        assert await asyncio.gather(*map(question, totals)) == list(totals)


class TestResolve:
    def test_config_alone_is_not_knowledge(self) -> None:
        hints = resolve_hints(config=CONFIG, call_index=0)
        assert hints is CONFIG and not hints.total_is_known and hints.priority is None

    def test_a_prediction_beats_the_config(self) -> None:
        prediction = CallPrediction(remaining_calls=2.4, output_tokens=90, interarrival_ms=30, latency_sensitivity=4)
        hints = resolve_hints(config=CONFIG, call_index=3, prediction=prediction)
        assert (hints.total_requests, hints.osl, hints.iat) == (6, 90, 30)
        assert hints.remaining_calls == 2.4 and hints.total_is_known and hints.latency_sensitivity == 4

    def test_a_prediction_without_samples_leaves_the_config(self) -> None:
        hints = resolve_hints(config=CONFIG, call_index=3, prediction=CallPrediction())
        assert (hints.total_requests, hints.osl, hints.iat) == (10, PrefixLevel.MEDIUM, PrefixLevel.MEDIUM)
        assert not hints.total_is_known

    def test_the_decorator_beats_the_prediction(self) -> None:
        hints = resolve_hints(
            config=CONFIG, call_index=0, prediction=CallPrediction(latency_sensitivity=1), manual_sensitivity=7
        )
        assert hints.latency_sensitivity == 7 and hints.priority == 7

    def test_a_scope_beats_everything(self) -> None:
        hints = resolve_hints(
            config=CONFIG,
            call_index=0,
            scope=ScopeHints(total_requests=3, osl=11, iat=22, priority=-5),
            prediction=CallPrediction(remaining_calls=9, output_tokens=1, interarrival_ms=1),
            manual_sensitivity=7,
        )
        assert (hints.total_requests, hints.osl, hints.iat, hints.priority) == (3, 11, 22, -5)
        assert hints.remaining_calls is None and hints.total_is_known
