"""What a caller sees of the cache: hits, what is kept, and for whom."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.cache.replay import assemble
from nat_dynamo_plugin.http.sse import events_in
from nat_dynamo_plugin.question.org import org_scope

from .upstream import PATIENCE_S, USAGE, Model, Upstream, answer, body, post, stream

STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def said(content: bytes) -> Any:
    whole = assemble(events_in(content))
    assert whole is not None
    return whole["choices"][0]["message"]["content"]


async def test_an_answer_is_given_again(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        first, second = await post(clients, body()), await post(clients, body())
        in_a_thread = await asyncio.to_thread(
            clients.sync.post, f"{clients.base_url}/chat/completions", json=body(metadata={"a": "b"})
        )
    assert len(upstream.asked) == 1
    assert "x-nat-dynamo-cache" not in first.headers
    assert second.headers["x-nat-dynamo-cache"].startswith("hit; age=")
    one, other = first.json(), second.json()
    assert other["choices"] == one["choices"] == in_a_thread.json()["choices"] and other["usage"] == USAGE
    assert len({one["id"], other["id"], in_a_thread.json()["id"]}) == 3 and other["created"] > one["created"]
    miss, *hits = model.records
    assert miss.cache is None and miss.attempts == 1
    for hit in hits:
        assert (hit.cache, hit.attempts, hit.status, hit.model) == ("exact", 0, 200, "m")
        assert (hit.prompt_tokens, hit.completion_tokens, hit.finish_reason) == (12, 3, "stop")
        assert hit.client_ttft_ms is None and hit.server_ttft_ms is None and not hit.failed
        assert hit.prefix_id and hit.session_id


@pytest.mark.parametrize("first", [{}, STREAMED], ids=["whole", "streamed"])
@pytest.mark.parametrize("second", [{}, STREAMED], ids=["whole", "streamed"])
async def test_streamed_and_whole_answers_are_one(
    model: Model, upstream: Upstream, first: dict[str, Any], second: dict[str, Any]
) -> None:
    async with model.clients() as clients:
        await post(clients, body(**first))
        hit = await post(clients, body(**second))
    assert len(upstream.asked) == 1 and hit.headers["x-nat-dynamo-cache"]
    if second:
        assert hit.headers["content-type"].startswith("text/event-stream")
        whole = assemble(events_in(hit.content))
        assert whole is not None and whole["usage"] == USAGE and said(hit.content) == "forty two"
        assert hit.content.endswith(b"data: [DONE]\n\n")
    else:
        assert hit.json()["choices"][0]["message"]["content"] == "forty two" and hit.json()["usage"] == USAGE
    assert model.records[1].streamed is bool(second) and model.records[1].completion_tokens == 3


async def test_openais_library_reads_a_replayed_stream(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        openai = clients.async_openai()
        for _ in range(2):
            chunks = [chunk async for chunk in await openai.chat.completions.create(**body(), **STREAMED)]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "forty two"
            assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 3
    assert len(upstream.asked) == 1


async def test_who_wants_the_usage_is_not_given_an_answer_without(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        await post(clients, body(stream=True))
        assert (await post(clients, body(stream=True))).headers["x-nat-dynamo-cache"]
        assert (await post(clients, body())).json()["usage"] == USAGE
        assert len(upstream.asked) == 2
        assert b"usage" not in (await post(clients, body(stream=True))).content
        assert (await post(clients, body())).json()["usage"] == USAGE
    assert len(upstream.asked) == 2


def replaced(**choice: Any) -> dict[str, Any]:
    whole = answer()
    whole["choices"][0].update(choice)
    return whole


NOT_KEPT: dict[str, Any] = {
    "length": replaced(finish_reason="length"),
    "filtered": replaced(finish_reason="content_filter"),
    "unknown ending": replaced(finish_reason="abort"),
    "empty": replaced(message={"role": "assistant", "content": ""}),
    "one of two": answer(
        choices=[*answer()["choices"], {**answer()["choices"][0], "index": 1, "finish_reason": "length"}]
    ),
    "another model": answer(model="m-mini"),
}


@pytest.mark.parametrize("said", NOT_KEPT.values(), ids=NOT_KEPT)
async def test_what_is_not_whole_or_not_good_is_not_kept(model: Model, upstream: Upstream, said: Any) -> None:
    upstream.say = lambda _: (200, "application/json", json.dumps(said).encode())
    async with model.clients() as clients:
        assert [(await post(clients, body())).json()["choices"] for _ in range(2)] == [said["choices"]] * 2
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("status", [200, 400, 429, 500])
async def test_an_error_is_not_kept(model: Model, upstream: Upstream, status: int) -> None:
    upstream.say = lambda _: (status, "application/json", b'{"error": {"message": "no"}}')
    async with model.clients(prefix_template=None) as clients:
        assert [(await post(clients, body())).status_code >= 400 for _ in range(2)] == [True, True]
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("ending", ["length", "content_filter"])
async def test_a_stream_that_ends_otherwise_is_not_kept(model: Model, upstream: Upstream, ending: str) -> None:
    upstream.say = lambda _: (200, "text/event-stream", stream(ending=ending))
    async with model.clients() as clients:
        for _ in range(2):
            assert said((await post(clients, body(stream=True))).content) == "forty two"
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_stream_that_breaks_at_any_byte_leaves_no_entry(
    model: Model, upstream: Upstream, chunked: bool
) -> None:
    whole, upstream.chunked = stream("ab"), chunked
    upstream.say = lambda _: (200, "text/event-stream", whole)
    async with model.clients() as clients:
        cache = model.services[-1].cache
        assert cache is not None
        cuts = range(whole.rindex(b"[DONE]") + len(b"[DONE]"))
        for cut in cuts:
            upstream.cut = cut
            with suppress(httpx.TransportError):  # which some of these are to the client
                await post(clients, body(stream=True))
            assert list(cache.entries()) == [], cut
    assert len(upstream.asked) == len(cuts)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.7},
        {"temperature": None},
        {"store": True},
        {"web_search_options": {}, "tools": [{"type": "web_search"}]},
        {"modalities": ["text", "audio"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]}]},
    ],
)
async def test_what_may_change_is_asked_again(model: Model, upstream: Upstream, fields: dict[str, Any]) -> None:
    async with model.clients() as clients:
        for _ in range(2):
            await post(clients, body(**fields))
    assert len(upstream.asked) == 2


@pytest.mark.parametrize(
    ("cache", "fields"),
    [
        ({}, {"temperature": 0.7, "seed": 1}),
        ({"deterministic_only": False}, {"temperature": 0.7}),
        (
            {},
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
                    }
                ]
            },
        ),
    ],
)
async def test_what_does_not_change_is_not(model: Model, upstream: Upstream, cache: Any, fields: Any) -> None:
    async with model.clients(cache) as clients:
        for _ in range(2):
            await post(clients, body(**fields))
    assert len(upstream.asked) == 1


async def test_an_ignored_seed_does_not_make_a_draw_repeatable(model: Model, upstream: Upstream) -> None:
    async with model.clients({"ignore": ["seed"]}) as clients:
        await post(clients, body(temperature=0.7, seed=1))
        await post(clients, body(temperature=0.7, seed=2))
        assert len(upstream.asked) == 2
        await post(clients, body(seed=1))
        await post(clients, body(seed=2))
    assert len(upstream.asked) == 3


async def test_streams_can_be_left_out(model: Model, upstream: Upstream) -> None:
    async with model.clients({"streams": False}) as clients:
        for _ in range(2):
            await post(clients, body(stream=True))
        for _ in range(2):
            await post(clients, body())
    assert len(upstream.asked) == 3


async def test_a_caller_may_ask_for_a_new_answer(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        await post(clients, body(), {"cache-control": "no-store"})
        await post(clients, body())
        assert len(upstream.asked) == 2
        upstream.say = lambda _: (200, "application/json", json.dumps(answer("new")).encode())
        await post(clients, body(), {"cache-control": "no-cache"})
        assert len(upstream.asked) == 3
        assert (await post(clients, body())).json()["choices"][0]["message"]["content"] == "new"
    assert len(upstream.asked) == 3


async def test_orgs_keys_and_headers_share_nothing(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        for org in ("acme", "globex", "acme"):
            with org_scope(org):
                await post(clients, body())
        assert len(upstream.asked) == 2
        for key in ("one", "two", "one"):
            await post(clients, body(), {"authorization": f"Bearer {key}"})
        assert len(upstream.asked) == 4
        for header in ("openai-project", "x-payload-tone", "x-tenant-id", "openai-beta"):
            await post(clients, body(), {header: "a"})
        assert len(upstream.asked) == 8
        await post(clients, body(), {"x-request-id": "1"})
        await post(clients, body(), {"x-request-id": "2"})
    assert len(upstream.asked) == 9


async def test_an_orgs_calls_are_one_whatever_their_key(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        with org_scope("acme"):
            for key in ("one", "two"):
                await post(clients, body(), {"authorization": f"Bearer {key}"})
    assert len(upstream.asked) == 1


async def test_llms_of_one_config_share_and_of_other_keys_do_not(model: Model, upstream: Upstream) -> None:
    for key in ("sk-a", "sk-b", "sk-a"):
        async with model.clients(api_key=key) as clients:
            await post(clients, body())
    assert len(upstream.asked) == 2


async def test_no_secret_is_in_what_is_kept(model: Model) -> None:
    with org_scope("acme-corporation"):
        async with model.clients(api_key="sk-canary-1234567890") as clients:
            await post(clients, body())
    cache = model.services[-1].cache
    assert cache is not None
    kept = list(cache.store.entries())
    assert kept and not any(b"acme" in value or b"canary" in value or "acme" in place for place, value in kept)


async def test_a_fallbacks_answer_is_kept_for_an_alias_only(model: Model, upstream: Upstream) -> None:
    upstream.say = lambda _: (200, "application/json", json.dumps(answer(model="other-model")).encode())
    async with model.clients({"aliases": ["best"]}) as clients:
        for _ in range(2):
            await post(clients, body(model="best"))
        assert len(upstream.asked) == 1
        for _ in range(2):
            await post(clients, body(model="m"))
    assert len(upstream.asked) == 3


async def test_other_apis_pass(model: Model, upstream: Upstream) -> None:
    upstream.say = lambda _: (200, "application/json", b'{"status": "completed", "output": []}')
    async with model.clients() as clients:
        for _ in range(2):
            await clients.asynchronous.post(f"{clients.base_url}/responses", json={"model": "m", "input": "a"})
    assert len(upstream.asked) == 2


async def test_clearing_forgets(model: Model, upstream: Upstream) -> None:
    async with model.clients() as clients:
        cache = model.services[-1].cache
        assert cache is not None
        await post(clients, body("a"))
        await post(clients, body("b", model="m-2"))
        assert cache.clear(model="m-3") == 0 and cache.clear(older_than_s=PATIENCE_S) == 0
        assert cache.clear(model="m") == 1
        await post(clients, body("a"))
        assert len(upstream.asked) == 3


async def test_the_first_event_of_a_miss_is_not_held_back(model: Model, upstream: Upstream) -> None:
    """The server sends no more until the caller has the first event."""
    async with model.clients() as clients:
        upstream.cut = len(stream()) // 2
        request = clients.asynchronous.build_request(
            "POST", f"{clients.base_url}/chat/completions", json=body(stream=True)
        )
        upstream.say = lambda _: (200, "text/event-stream", stream())
        reply = await clients.asynchronous.send(request, stream=True)
        first = await anext(reply.aiter_raw())
        assert first.startswith(b"data: ")
        await reply.aclose()
    assert model.services[-1].cache is not None and not list(model.services[-1].cache.store.entries())


async def test_hits_are_recorded_too(model: Model, upstream: Upstream, tmp_path: Path) -> None:
    """An agent that is run again on a recording makes all its calls."""
    async with model.clients(record={"file": str(tmp_path / "calls.jsonl")}) as clients:
        for streamed in ({}, {}, STREAMED):
            await post(clients, body(**streamed))
    rows = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert len(upstream.asked) == 1 and len([row for row in rows if "forty two" in json.dumps(row)]) == 3
