"""The documented 1.4 API."""

from __future__ import annotations

import httpx
import pytest

from nat_dynamo_plugin import dynamo_llm as api
from nat_dynamo_plugin.question.hints import DynamoHints


def test_every_documented_name_is_there() -> None:
    for name in (
        "PrefixLevel",
        "DynamoPrefixContext",
        "DynamoModelConfig",
        "_create_dynamo_request_hook",
        "create_httpx_client_with_dynamo_hooks",
        "dynamo_llm",
    ):
        assert hasattr(api, name)
    assert [level.value for level in api.PrefixLevel] == ["LOW", "MEDIUM", "HIGH"]


async def headers_of(hook: object) -> httpx.Headers:
    request = httpx.Request("POST", "http://127.0.0.1:1/v1/chat/completions", json={})
    await hook(request)  # type: ignore[operator]
    return request.headers


async def test_the_hook_sets_the_four_headers() -> None:
    hook = api._create_dynamo_request_hook("t-{uuid}", 7, "high", "Low")
    first, second = await headers_of(hook), await headers_of(hook)
    assert first["x-prefix-id"].startswith("t-")
    assert first["x-prefix-id"] == second["x-prefix-id"]
    assert first["x-prefix-total-requests"] == "7"
    assert (first["x-prefix-osl"], first["x-prefix-iat"]) == ("HIGH", "LOW")
    other = await headers_of(api._create_dynamo_request_hook("t-{uuid}", 7, "high", "Low"))
    assert other["x-prefix-id"] != first["x-prefix-id"]


async def test_the_context_overrides_the_hooks_own_id() -> None:
    hook = api._create_dynamo_request_hook("t-{uuid}", 7, "LOW", "LOW")
    with api.DynamoPrefixContext.scope("mine"):
        assert (await headers_of(hook))["x-prefix-id"] == "mine"
    assert (await headers_of(hook))["x-prefix-id"].startswith("t-")


async def test_a_scope_of_hints_overrides_the_hooks_own() -> None:
    hook = api._create_dynamo_request_hook("t-{uuid}", 7, "LOW", "LOW")
    with DynamoHints.scope(total_requests=3, osl=2000):
        with DynamoHints.scope(iat="HIGH"):
            headers = await headers_of(hook)
        assert (await headers_of(hook))["x-prefix-iat"] == "LOW"
    assert headers["x-prefix-total-requests"] == "3"
    assert (headers["x-prefix-osl"], headers["x-prefix-iat"]) == ("HIGH", "HIGH")
    assert (await headers_of(hook))["x-prefix-total-requests"] == "7"


async def test_an_id_of_any_text_travels() -> None:
    hook = api._create_dynamo_request_hook("t-{uuid}", 7, "LOW", "LOW")
    with api.DynamoPrefixContext.scope("t\u00e9\ud83d"):
        assert (await headers_of(hook))["x-prefix-id"].isascii()


async def test_the_client_has_that_one_hook() -> None:
    client = api.create_httpx_client_with_dynamo_hooks(None, 10, "MEDIUM", "MEDIUM", timeout=3.0)
    async with client:
        assert len(client.event_hooks["request"]) == 1
        assert client.timeout == httpx.Timeout(3.0)
        assert (await headers_of(client.event_hooks["request"][0]))["x-prefix-id"].startswith("nat-dynamo-")


def test_a_bad_level_is_named() -> None:
    with pytest.raises(ValueError, match="osl='big'"):
        api._create_dynamo_request_hook(None, 10, "big", "LOW")
