"""What tokens cost; among them the cases that other tools got wrong, each with the issue that tells of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.cost.prices import Prices, Unpriced, split_of
from nat_dynamo_plugin.cost.pricing import Pricing
from nat_dynamo_plugin.dialects.anthropic import messages_usage
from nat_dynamo_plugin.dialects.gemini import Gemini
from nat_dynamo_plugin.dialects.usage import Usage, openai_usage
from nat_dynamo_plugin.dialects.xai import XAI
from nat_dynamo_plugin.http.answer_fields import take_usage
from nat_dynamo_plugin.telemetry.record import CallRecord


def a_call(usage: Usage | None, **fields: Any) -> CallRecord:
    record = CallRecord(status=200, **fields)
    assert usage is not None
    take_usage(record, usage)
    return record


class TestCasesOthersGotWrong:
    def test_gemini_counts_cached_tokens_once(self) -> None:
        """BerriAI/litellm#14849: $0.7642 for what costs $0.1849."""
        usage = {
            "prompt_tokens": 262_960,
            "completion_tokens": 1_744,
            "total_tokens": 264_704,
            "prompt_tokens_details": {"cached_tokens": 257_955, "text_tokens": 262_960},
        }
        cost = Prices(input=1.25, cache_read=0.625, output=10).cost_usd(a_call(Gemini().read_usage(usage)))
        assert cost == pytest.approx(0.1849, abs=5e-5)

    def test_xai_counts_cached_tokens_once(self) -> None:
        """BerriAI/litellm#14874: cached tokens are inside the prompt's, whatever `text_tokens` says."""
        usage = {
            "prompt_tokens": 2_739,
            "completion_tokens": 5,
            "total_tokens": 2_744,
            "prompt_tokens_details": {"cached_tokens": 2_634, "text_tokens": 2_739},
        }
        cost = Prices(input=200, cache_read=0.01, output=0).cost_usd(a_call(XAI().read_usage(usage)))
        assert cost == pytest.approx((105 * 200 + 2_634 * 0.01) / 1e6)

    def test_xai_bills_reasoning_beside_the_answer(self) -> None:
        """UKGovernmentBEIS/inspect_ai#5528 and Wei-Shaw/sub2api#5771, whose bill of 232,856,000 ticks we come to."""
        usage = {
            "prompt_tokens": 10_120,
            "completion_tokens": 1_499,
            "total_tokens": 14_428,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2_809},
        }
        call = a_call(XAI().read_usage(usage))
        assert Prices(input=1.25, cache_read=0.20, output=2.50).cost_usd(call) == pytest.approx(0.0232856)
        billed = a_call(XAI().read_usage({**usage, "cost_in_usd_ticks": 232_856_000}))
        assert Pricing(use_table=False).of(billed) == (pytest.approx(0.0232856), "provider")

    @pytest.mark.parametrize("read", [10, 1_000, 100_000])
    def test_anthropic_reads_are_outside_however_few_they_are(self, read: int) -> None:
        """A guess by size ("cached above the prompt, so it is Anthropic") fails where little is cached."""
        usage = {"input_tokens": 2_000, "cache_read_input_tokens": read, "output_tokens": 100}
        cost = Prices(input=3, cache_read=0.3, output=15).cost_usd(a_call(messages_usage(usage)))
        assert cost == pytest.approx((2_000 * 3 + read * 0.3 + 100 * 15) / 1e6)

    def test_prices_of_ones_own_bill_anthropics_reads_once_and_its_writes(self) -> None:
        """BerriAI/litellm#40006 bills reads twice; others leave the writes out, which cost most."""
        usage = {
            "input_tokens": 50,
            "cache_read_input_tokens": 66_360,
            "cache_creation_input_tokens": 32_435,
            "cache_creation": {"ephemeral_5m_input_tokens": 30_000, "ephemeral_1h_input_tokens": 2_435},
            "output_tokens": 5_120,
        }
        prices = Prices(input=5, output=25, cache_read=0.5, cache_write=6.25, cache_writes={"1h": 10})
        cost = prices.cost_usd(a_call(messages_usage(usage)))
        assert cost == pytest.approx((50 * 5 + 66_360 * 0.5 + 30_000 * 6.25 + 2_435 * 10 + 5_120 * 25) / 1e6)

    def test_cached_tokens_without_a_price_make_no_cost_rather_than_the_full_one(self) -> None:
        """BerriAI/litellm#27191: prices of one's own that leave cached tokens out came to 67 % too much."""
        usage = openai_usage(
            {"prompt_tokens": 1_000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 900}}
        )
        with pytest.raises(Unpriced, match="cache_read"):
            Prices(input=1, output=2).cost_usd(a_call(usage))

    def test_a_model_that_nobody_knows_has_no_cost(self, caplog: pytest.LogCaptureFixture) -> None:
        """datacurve-ai/pier#9: not zero, and not another model's price."""
        usage = openai_usage({"prompt_tokens": 10, "completion_tokens": 1})
        pricing = Pricing({"gpt-5": Prices(1, 2)}, use_table=False)
        assert pricing.of(a_call(usage, model="gpt-5-ultra", request_model="gpt-5-ultra")) is None
        assert "gpt-5-ultra" in caplog.text


def test_writes_without_a_price_make_no_cost() -> None:
    usage = Usage(100, 0, 1, cache_write_tokens=50)
    with pytest.raises(Unpriced, match="cache_write"):
        Prices(1, 1, cache_read=1).cost_usd(a_call(usage))
    assert Prices(1, 1, cache_read=1, cache_write=2).cost_usd(a_call(usage)) == pytest.approx(151 / 1e6)


def test_what_the_server_does_not_say_is_not_taken_for_none() -> None:
    unknown = a_call(Usage(100, None, 1))
    with pytest.raises(Unpriced, match="cached"):
        Prices(1, 1, cache_read=0.1).cost_usd(unknown)
    assert Prices(1, 1).cost_usd(unknown) == pytest.approx(101 / 1e6)  # one price for all of the prompt
    for usage in (Usage(100, 0, None), Usage(None, 0, 1)):
        with pytest.raises(Unpriced, match="how many"):
            Prices(1, 1).cost_usd(a_call(usage))


@pytest.mark.parametrize(
    "usage", [Usage(10, 11, 1), Usage(10, 5, 1, cache_write_tokens=6), Usage(10, 0, 1, reasoning_tokens=2)]
)
def test_numbers_that_contradict_each_other_have_no_cost(usage: Usage) -> None:
    with pytest.raises(Unpriced):
        Prices(1, 1, cache_read=1, cache_write=1).cost_usd(a_call(usage))


def test_reasoning_has_the_price_of_the_answer_unless_it_has_its_own() -> None:
    call = a_call(Usage(0, 0, 10, reasoning_tokens=4))
    assert Prices(1, 2).cost_usd(call) == pytest.approx(20 / 1e6)
    assert Prices(1, 2, reasoning=5).cost_usd(call) == pytest.approx((6 * 2 + 4 * 5) / 1e6)


count = st.integers(0, 10**6)


@given(count, count, count, count, count, count)
def test_each_token_is_counted_once(rest: int, read: int, short: int, long: int, spoken: int, reasoning: int) -> None:
    usage = Usage(
        rest + read + short + long,
        read,
        spoken + reasoning,
        cache_write_tokens=short + long,
        cache_writes={"1h": long},
        reasoning_tokens=reasoning,
    )
    split = split_of(a_call(usage))
    assert (split.uncached, split.cached, split.spoken, split.reasoning) == (rest, read, spoken, reasoning)
    assert split.writes.get("", 0) == short and split.writes.get("1h", 0) == long
    one = Prices(1, 1, cache_read=1, cache_write=1)
    assert one.cost_usd(a_call(usage)) == pytest.approx((rest + read + short + long + spoken + reasoning) / 1e6)


class TestSourcesInOrder:
    prices = {"m*": Prices(1, 1, cache_read=1)}  # noqa: RUF012

    def test_the_providers_own_figure_comes_first_be_it_0(self) -> None:
        call = a_call(Usage(10, 0, 1, reported_usd=0.0), model="m")
        assert Pricing(self.prices).of(call) == (0.0, "provider")

    def test_then_the_users_by_the_model_that_answered_or_was_asked_for(self) -> None:
        usage = Usage(10, 0, 1)
        pricing = Pricing(self.prices, use_table=False)
        assert pricing.of(a_call(usage, model="m-2025")) == (pytest.approx(11 / 1e6), "prices")
        assert pricing.of(a_call(usage, model="x", request_model="m")) == (pytest.approx(11 / 1e6), "prices")

    def test_the_users_come_before_the_table(self) -> None:
        call = a_call(Usage(10, 0, 1), model="m", origin="https://api.openai.com")
        assert Pricing(self.prices, table_provider="openai", table_model="gpt-5").of(call) == (
            pytest.approx(11 / 1e6),
            "prices",
        )

    def test_a_price_that_lacks_something_is_not_made_up_from_the_table(self) -> None:
        call = a_call(Usage(10, 5, 1), model="gpt-5", origin="https://api.openai.com")
        assert Pricing({"gpt-5": Prices(1, 1)}).of(call) is None
