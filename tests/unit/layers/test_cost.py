"""Costs of calls as a client makes them, through all layers, to a server in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.cost.gpu import BusyTime
from nat_dynamo_plugin.cost.prices import Prices
from nat_dynamo_plugin.cost.pricing import Pricing
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Flow
from nat_dynamo_plugin.http.headers import Headers
from nat_dynamo_plugin.layers.cost import AttemptCostLayer, CostLayer
from nat_dynamo_plugin.question.org import org_digest, org_scope
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.transport import DynamoTransport

URL = "http://127.0.0.1:9/v1/chat/completions"
COST = {"prices": {"m": {"input": 1, "cache_read": 0.1, "output": 10}}, "genai_prices": False}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 500}}
PRICE = (500 * 1 + 500 * 0.1 + 10 * 10) / 1e6


def an_answer(finish: str | None = "stop", usage: Any = USAGE) -> httpx.Response:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": "x"}}
    return httpx.Response(200, json={"model": "m", "choices": [choice], "usage": usage})


class Broken(httpx.SyncByteStream):
    """A stream that breaks before its first event."""

    def __iter__(self) -> Iterator[bytes]:
        raise httpx.ReadError("gone")
        yield b""


def ask(*answers: Any, cost: Any = COST, retries: int = 3, org: str | None = None) -> CallRecord:
    records: list[CallRecord] = []
    config = DynamoModelConfig(
        model_name="m",
        base_url="http://127.0.0.1:9/v1",
        cost=cost,
        breaker={"on_outage": "ignore"},
        retry={"max_retries": retries, "budget": None},
    )
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    service = make_service(config, emit_record=records.append)
    with httpx.Client(transport=DynamoTransport(httpx.MockTransport(handle), service)) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        if org is None:
            client.post(URL, json=body)
        else:
            with org_scope(org):
                client.post(URL, json=body)
    [record] = records
    return record


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.layers.retry.backoff_s", lambda retry: 0.0)


def test_an_answer_has_its_price_and_its_org() -> None:
    record = ask(an_answer(), org="acme")
    assert record.cost_usd == pytest.approx(PRICE)
    assert (record.cost_source, record.unpriced_attempts, record.saved_usd) == ("prices", 0, None)
    assert record.org == org_digest("acme") and "acme" not in json.dumps(record.to_dict())


def test_off_means_off() -> None:
    record = ask(an_answer(), cost=None, org="acme")
    assert (record.cost_usd, record.cost_source, record.org) == (None, None, None)


def test_attempts_that_broke_and_were_billed_are_added() -> None:
    record = ask(an_answer(finish="error"), an_answer(finish=None), an_answer())
    assert record.attempts == 3
    assert record.cost_usd == pytest.approx(3 * PRICE)
    assert record.unpriced_attempts == 0
    assert record.prompt_tokens == 1000  # of the answer alone


def test_a_broken_attempt_that_did_not_say_its_usage_is_counted_and_not_priced() -> None:
    record = ask(an_answer(finish="error", usage=None), an_answer())
    assert record.cost_usd == pytest.approx(PRICE)
    assert record.unpriced_attempts == 1


def test_the_usage_of_one_attempt_is_not_taken_for_the_next_ones() -> None:
    record = ask(an_answer(finish="error"), an_answer(usage=None))
    assert record.cost_usd is None  # what the answer itself cost is not known, so neither is the sum
    assert record.prompt_tokens is None


def test_a_call_whose_attempts_all_broke_costs_what_they_did() -> None:
    record = ask(an_answer(finish="error"), an_answer(finish="error"), retries=1)
    assert record.failed
    assert record.cost_usd == pytest.approx(2 * PRICE)


def test_an_answer_that_broke_off_before_its_usage_is_counted() -> None:
    broken = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Broken())
    record = ask(broken, an_answer())
    assert (record.unpriced_attempts, record.attempts) == (1, 2)


@pytest.mark.parametrize("refusal", [httpx.Response(503, json={"error": {}}), httpx.ConnectError("no")])
def test_what_was_never_answered_is_on_no_bill(refusal: Any) -> None:
    record = ask(refusal, an_answer())
    assert record.attempts == 2
    assert record.cost_usd == pytest.approx(PRICE)
    assert record.unpriced_attempts == 0


def test_a_refused_call_has_no_cost() -> None:
    record = ask(httpx.Response(404, json={"error": {"message": "no"}}), retries=0)
    assert (record.cost_usd, record.cost_source, record.unpriced_attempts) == (None, None, 0)


def test_the_price_of_the_gpus_is_shared_by_time() -> None:
    record = ask(an_answer(), cost={"gpu_hour_usd": 3600.0, "gpus": 2, "genai_prices": False})
    assert record.cost_source == "gpu_hour_usd"
    assert record.cost_usd is not None and record.client_total_ms is not None
    assert 0 < record.cost_usd <= 2 * record.client_total_ms / 1000


def test_prices_come_before_the_gpus_and_the_share_is_still_given_back() -> None:
    record = ask(an_answer(), cost={**COST, "gpu_hour_usd": 3600.0})
    assert record.cost_source == "prices" and record.cost_usd == pytest.approx(PRICE)


# The response cache's field is its own layer's; here a record that has one.


@dataclass(slots=True, kw_only=True)
class CachedRecord(CallRecord):
    cache: str | None = None


def finished(record: CallRecord) -> CallRecord:
    request = httpx.Request("POST", URL, json={})
    call = Call(request, "chat_completions", Headers(request.headers.raw), b"{}")
    call.record = record

    def cached(call: Call) -> Flow:
        return Reply(200, [], b"{}")
        yield

    flow = CostLayer(Pricing({"m": Prices(1, 10, cache_read=0.1)}, use_table=False)).flow(call, cached)
    with pytest.raises(StopIteration):
        next(flow)
    call.finish()
    return record


def test_an_answer_out_of_the_cache_costs_nothing_and_says_what_it_saved() -> None:
    record = CachedRecord(
        cache="exact", status=200, model="m", prompt_tokens=1000, cached_tokens=500, completion_tokens=10
    )
    finished(record)
    assert (record.cost_usd, record.cost_source) == (0.0, "cache")
    assert record.saved_usd == pytest.approx(PRICE)


def test_what_a_cached_answer_saved_is_not_guessed() -> None:
    record = CachedRecord(
        cache="exact", status=200, model="other", prompt_tokens=1, cached_tokens=0, completion_tokens=1
    )
    finished(record)
    assert (record.cost_usd, record.saved_usd) == (0.0, None)


def test_a_call_that_is_left_gives_its_share_back() -> None:
    now = [0.0]
    busy = BusyTime(3600.0, lambda: now[0])
    request = httpx.Request("POST", URL, json={})
    call = Call(request, "chat_completions", Headers(request.headers.raw), b"{}")

    def fails(call: Call) -> Flow:
        now[0] += 1
        raise KeyboardInterrupt
        yield

    flow = AttemptCostLayer(Pricing(use_table=False), busy).flow(call, fails)
    with pytest.raises(KeyboardInterrupt):
        next(flow)
    assert call.record.cost_usd == pytest.approx(1.0)
    began = busy.begin()
    now[0] += 1
    assert busy.end(began) == pytest.approx(1.0)  # nobody else is counted any more
