"""Calls within rules: refused or made to wait, counted by what they took, in all ways in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin import DynamoModelConfig, DynamoTransport, make_service
from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Failure
from nat_dynamo_plugin.layers.limits import LimitsLayer
from nat_dynamo_plugin.limits.ledger import Ledger, memory_ledger
from nat_dynamo_plugin.limits.rules import Rule, charges
from nat_dynamo_plugin.question.org import org_scope

WELL = Reply.made(200, b"{}")
TOKENS = Rule("tokens", 100, 60)
MakeLayer = Callable[..., LimitsLayer]


def layer(*rules: Rule, **more: Any) -> tuple[LimitsLayer, Ledger]:
    ledger = memory_ledger("s")
    return LimitsLayer(rules, ledger, "http://server", **more), ledger


def count(ledger: Ledger, rule: Rule, name: str = "") -> float:
    (one,) = charges((rule,), {}, {})
    return ledger.window(type(one)(rule, name, 0)).count


def finish(call: Call, prompt: int | None, completion: int | None) -> None:
    call.record.prompt_tokens, call.record.completion_tokens = prompt, completion
    call.finish()


def test_what_was_reserved_is_put_right_by_what_was_used(drive: Any, scripted: Any) -> None:
    limits, ledger = layer(TOKENS)
    call = drive.call(body=b'{"max_tokens": 80}')
    drive(limits, scripted(WELL), call)
    assert count(ledger, TOKENS) >= 80
    finish(call, 5, 7)
    assert count(ledger, TOKENS) == 12


def test_without_usage_what_was_reserved_stands(drive: Any, scripted: Any) -> None:
    limits, ledger = layer(TOKENS)
    call = drive.call(body=b'{"max_tokens": 80}')
    drive(limits, scripted(WELL), call)
    finish(call, None, None)
    assert count(ledger, TOKENS) >= 80


@pytest.mark.parametrize("answer", [Reply.made(500, b"{}"), Failure("connect", httpx.ConnectError("no"))])
def test_a_failed_request_is_a_request_without_tokens(drive: Any, scripted: Any, answer: Any) -> None:
    requests = Rule("requests", 5, 60)
    limits, ledger = layer(TOKENS, requests)
    call = drive.call(body=b'{"max_tokens": 80}')
    with contextlib.suppress(Failure):
        drive(limits, scripted(answer), call)
    assert (count(ledger, TOKENS), count(ledger, requests)) == (0, 1)


def test_a_refusal_is_openais_and_sends_nothing(drive: Any, scripted: Any) -> None:
    limits, _ = layer(Rule("requests", 1, 60), wait=False)
    drive(limits, scripted(WELL))
    server, call = scripted(WELL), drive.call()
    reply = drive(limits, server, call)
    assert reply.status == 429 and not server.sent
    error = json.loads(reply.content)["error"]
    assert error["type"] == error["code"] == call.record.error_type == "rate_limited"
    assert "1 requests in 60 s; room in" in error["message"] and "Nothing was sent to http://server" in error["message"]
    assert reply.headers.get("x-should-retry") == "false" and 1 <= int(reply.headers.get("retry-after") or 0) <= 120


def test_a_spent_budget_is_not_waited_for(drive: Any, scripted: Any) -> None:
    budget = Rule("usd", 0.01, 86400)
    limits, ledger = layer(budget)
    call = drive.call()
    drive(limits, scripted(WELL), call)
    call.record.cost_usd = 0.02
    call.finish()
    assert count(ledger, budget) == 20_000
    server, call = scripted(WELL), drive.call()
    reply = drive(limits, server, call)
    assert reply.status == 429 and not server.sent and not drive.slept
    assert json.loads(reply.content)["error"]["type"] == "insufficient_quota"
    anew = LimitsLayer((budget,), ledger, "http://server")  # which has seen no answer
    assert drive(anew, server, drive.call()).status == 429 and not server.sent


def test_a_call_waits_for_room_and_says_how_long(drive: Any, scripted: Any, limits_clock: Any) -> None:
    limits, _ = layer(Rule("requests", 1, 60))
    first = drive.call()
    drive(limits, scripted(WELL), first)
    finish(first, None, None)
    # Time goes on with each look.
    now = limits_clock.now
    limits_clock.__class__ = type("Going", (type(limits_clock),), {"__call__": lambda self: _later(self)})
    call, server = drive.call(), scripted(WELL)
    limits._max_wait_s = 1000.0
    assert drive(limits, server, call).status == 200
    assert len(server.sent) == 1 and call.record.limit_wait_ms > 0 and limits_clock.now - now >= 60


def _later(clock: Any) -> float:
    clock.now += 1.0
    return float(clock.now)


def test_a_wait_that_would_be_too_long_is_not_begun(drive: Any, scripted: Any, limits_clock: Any) -> None:
    limits, _ = layer(Rule("requests", 1, 60), max_wait_s=30.0)
    first = drive.call()
    drive(limits, scripted(WELL), first)
    finish(first, None, None)
    assert drive(limits, scripted(WELL)).status == 429 and not drive.slept


def test_orgs_have_counts_of_their_own(drive: Any, scripted: Any) -> None:
    limits, _ = layer(Rule("requests", 1, 60, ("org",)), wait=False)
    statuses = []
    for org in ("acme", "acme", "other"):
        with org_scope(org):
            statuses.append(drive(limits, scripted(WELL)).status)
    assert statuses == [200, 429, 200]


def test_keys_have_counts_of_their_own(drive: Any, scripted: Any) -> None:
    limits, ledger = layer(Rule("requests", 1, 60, ("key",)), wait=False)
    asked = [drive.call(headers={"authorization": f"Bearer sk-{name}"}) for name in "aab"]
    assert [drive(limits, scripted(WELL), call).status for call in asked] == [200, 429, 200]
    assert "sk-" not in str(vars(ledger._storage))


def server(tokens: int) -> httpx.MockTransport:
    """Answers with this usage."""
    usage = {"prompt_tokens": 1, "completion_tokens": tokens - 1, "total_tokens": tokens}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        )

    return httpx.MockTransport(answer)


CONFIG: dict[str, Any] = {
    "model_name": "m",
    "base_url": "http://127.0.0.1:9/v1",
    "limits": {"rules": [{"tokens": 100, "per": "minute"}], "on_limit": "fail"},
}
BODY = {"model": "m", "messages": [], "max_tokens": 25}
URL = "http://127.0.0.1:9/v1/chat/completions"


def test_a_hundred_calls_at_once_stay_within_a_limit_of_a_hundred_tokens(limits_clock: Any) -> None:
    """LiteLLM counted after the answer: 663 of 100 tokens were used."""
    transport = DynamoTransport(server(30), DynamoModelConfig(**CONFIG))

    async def calls() -> list[int]:
        async with httpx.AsyncClient(transport=transport) as client:
            answers = await asyncio.gather(*(client.post(URL, json=BODY) for _ in range(100)))
        return [answer.status_code for answer in answers]

    statuses = asyncio.run(calls())
    assert 30 * statuses.count(200) <= 100 + 30
    assert statuses.count(200) + statuses.count(429) == 100 and statuses.count(200) >= 2


def test_threads_share_the_count(limits_clock: Any) -> None:
    transport = DynamoTransport(server(30), DynamoModelConfig(**{**CONFIG, "base_url": "http://127.0.0.1:11/v1"}))
    url = URL.replace(":9/", ":11/")
    with httpx.Client(transport=transport) as client, ThreadPoolExecutor(20) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: client.post(url, json=BODY), range(100))]
    assert statuses.count(200) >= 2 and 30 * statuses.count(200) <= 100 + 30


def test_who_asked_first_goes_first() -> None:
    config = DynamoModelConfig(**{**CONFIG, "limits": {"rules": [{"requests": 1, "per": "second"}]}})
    order: list[int] = []

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        assert (await client.post(URL, json=BODY)).status_code == 200
        order.append(number)

    async def calls() -> None:
        async with httpx.AsyncClient(transport=DynamoTransport(server(30), config)) as client:
            tasks = []
            for number in range(4):
                tasks.append(asyncio.create_task(ask(client, number)))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)

    asyncio.run(calls())
    assert order == [0, 1, 2, 3]


def test_blocks_of_one_server_share_their_counts() -> None:
    one, two = (make_service(DynamoModelConfig(**CONFIG)) for _ in range(2))
    other = make_service(DynamoModelConfig(**{**CONFIG, "base_url": "http://127.0.0.1:10/v1"}))
    from nat_dynamo_plugin import guards

    found = [guards.limits(DynamoModelConfig(**CONFIG), f"http://127.0.0.1:{port}") for port in (9, 9, 10)]
    assert found[0] is found[1] is not found[2]
    assert one is not two and other is not one


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"rules": [{"tokens": 5, "requests": 5}]}, "requests and tokens"),
        ({"rules": [{"per": "day"}]}, "this one has none"),
        ({"rules": [{"tokens": 0}]}, "tokens=0 is not allowed"),
        ({"rules": [{"tokens": 5, "per": "week"}]}, "'second', 'minute', 'hour' or 'day'"),
        ({"rules": [{"tokens": 5, "by": "tenant"}]}, "'org', 'key' or 'model'"),
        ({"rules": [{"tokns": 5}]}, "tokns"),
        ({"on_limit": "block"}, "'wait' or 'fail'"),
    ],
)
def test_bad_limits_are_named(limits: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="limits") as caught:
        DynamoModelConfig(**{**CONFIG, "limits": limits})
    assert problem in str(caught.value)


def test_an_org_that_nat_knows_has_its_own_count() -> None:
    config = DynamoModelConfig(
        **{
            **CONFIG,
            "base_url": "http://127.0.0.1:12/v1",
            "org": {"default": "acme"},
            "limits": {"rules": [{"requests": 1, "by": "org"}], "on_limit": "fail"},
        }
    )
    url = URL.replace(":9/", ":12/")
    with httpx.Client(transport=DynamoTransport(server(30), config)) as client:
        statuses = [client.post(url, json=BODY).status_code for _ in range(2)]
        with org_scope("other"):
            statuses.append(client.post(url, json=BODY).status_code)
    assert statuses == [200, 429, 200]
