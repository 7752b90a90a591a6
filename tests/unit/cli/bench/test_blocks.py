"""How blocks are played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from nat_dynamo_plugin.cli.bench.blocks import Arm, Load, measure, play_block
from nat_dynamo_plugin.cli.bench.calls import salted, stream
from nat_dynamo_plugin.cli.bench.profile import agent_questions
from nat_dynamo_plugin.cli.bench.server import Server
from nat_dynamo_plugin.cli.replay.schedule import plan

SERVER = Server("http://h/v1", "m", True, 2, 1.0, True, True)


def events(*chunks: dict[str, Any]) -> bytes:
    head = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    return "".join(f"data: {json.dumps(head | chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


WHOLE = events(
    choice({"role": "assistant", "content": ""}),
    choice({"content": "yes"}),
    choice({}, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}},
)


class Asked:
    """A server in memory, what it was asked, and how many at once."""

    def __init__(self, answer: bytes = WHOLE, status: int = 200) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.now = self.most = 0
        self.answer, self.status = answer, status

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):  # others come in between
            await asyncio.sleep(0)
        self.now -= 1
        return httpx.Response(self.status, content=self.answer, headers={"content-type": "text/event-stream"})

    def client(self) -> AsyncOpenAI:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return AsyncOpenAI(base_url="http://h/v1", api_key="k", http_client=http, max_retries=0)


def load() -> Load:
    rows = agent_questions(3, 0)
    questions = plan(rows)
    hurried = [
        type(one)(one.name, 0.0, tuple(type(call)(call.number, call.after, 0.0) for call in one.calls))
        for one in questions
    ]
    return Load(rows, hurried, "test")


async def test_a_stream_is_measured() -> None:
    seen = await stream(Asked().client(), {"model": "m", "messages": []})
    assert seen.prompt_tokens == 9 and seen.cached_tokens is None
    assert seen.ttft_s is not None and 0 < seen.ttft_s <= seen.total_s
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    cached = events(choice({"role": "assistant"}), choice({}, "stop"), {"choices": [], "usage": usage})
    told = await stream(Asked(cached).client(), {"model": "m", "messages": []})
    assert told.cached_tokens == 8 and told.ttft_s is None  # a role alone is no token
    with pytest.raises(ValueError, match="ended before its answer"):
        await stream(Asked(events(choice({"content": "y"}))).client(), {"model": "m", "messages": []})


def test_a_salt_comes_first_and_changes_nothing_else() -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert salted(messages, "s") == [{"role": "system", "content": "s\nbe brief"}, messages[1]]
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert salted(parts, "s")[0]["content"] == [{"type": "text", "text": "s"}, {"type": "text", "text": "hello"}]
    assert salted([{"role": "user", "content": None}], "s")[0]["content"] == "s\n"
    assert messages[0]["content"] == "be brief"


def test_the_built_in_load_is_an_agents() -> None:
    rows = agent_questions(40, 1)
    assert rows == agent_questions(40, 1) != agent_questions(40, 2)
    assert len({row.messages[0]["content"] for row in rows}) == 1
    for question in plan(rows):
        calls = [rows[call.number] for call in question.calls]
        assert 2 <= len(calls) <= 10
        for one, after in pairwise(calls):
            assert after.messages[: len(one.messages)] == one.messages and len(after.messages) == len(one.messages) + 2
        assert all(0.02 <= call.gap_s <= 0.2001 for call in question.calls[1:])


def test_a_block_has_enough_questions_for_its_load() -> None:
    names = [name for name, _ in load().at(4, 2)]
    assert len(names) == len(set(names)) == 8
    assert names[:4] == ["q0000-0", "q0001-0", "q0002-0", "q0000-1"]
    assert len(load().at(1, 1)) == 2  # two at least, or there is no interval over questions


async def test_so_many_are_asked_at_once_each_in_its_scope_and_copies_share_no_prefix() -> None:
    asked = Asked()
    entered: list[str] = []

    @contextmanager
    def scope(name: str) -> Iterator[None]:
        entered.append(name)
        yield

    it = load()
    asking = it.at(2, 3)
    block = await play_block(Arm(asked.client(), scope), it, SERVER, asking, 2, "salt")
    assert asked.most == 2 and block.failed == 0 and block.problem is None
    assert sorted(block.answered) == sorted(name for name, _ in asking)
    assert sorted(entered) == sorted(f"salt-{name}" for name, _ in asking)
    assert len(asked.bodies) == sum(len(question.calls) for _, question in asking)
    firsts = {body["messages"][0]["content"].partition("\n")[0] for body in asked.bodies}
    assert firsts == {"[salt 0]", "[salt 1]"}
    assert all(body["stream_options"] == {"include_usage": True} and body["max_tokens"] > 0 for body in asked.bodies)
    one = block.answered["q0000-0"]
    assert len(one.calls) == len(it.questions[0].calls) and one.took_s >= sum(call.total_s for call in one.calls)


async def test_failed_calls_are_counted_and_their_questions_left_out() -> None:
    it = load()
    block = await play_block(Arm(Asked(b"{}", 400).client()), it, SERVER, it.at(1, 2), 1, "salt")
    assert not block.answered and block.failed > 0 and "BadRequestError" in str(block.problem)


async def test_both_arms_are_asked_the_same_in_an_order_that_is_drawn() -> None:
    arms = {name: Asked() for name in ("plain", "plugin")}
    order: list[str] = []

    @contextmanager
    def note(name: str) -> Iterator[None]:
        order.append(name.split("-")[0])
        yield

    it = load()
    made = {name: Arm(one.client(), note) for name, one in arms.items()}
    told: list[str] = []
    level = await measure(
        made, it, SERVER, 2, rounds=6, per_slot=1, seed=3, salt="s", enough=lambda n: n == 5, told=told.append
    )
    assert level.concurrency == 2 and len(level.rounds) == 5 == len(told)
    assert len(set(order)) == 10  # every block has words of its own
    asked = [sorted(json.dumps(body["messages"][1:]) for body in one.bodies) for one in arms.values()]
    assert asked[0] == asked[1]
    firsts = [next(iter(blocks)) for blocks in level.rounds]
    assert set(firsts) == {"plain", "plugin"}


async def test_a_level_at_which_nothing_is_answered_is_not_repeated() -> None:
    it = load()
    dead = {name: Arm(Asked(b"{}", 503).client()) for name in ("plain", "plugin")}
    level = await measure(
        dead, it, SERVER, 1, rounds=5, per_slot=1, seed=0, salt="s", enough=lambda n: False, told=lambda _: None
    )
    assert len(level.rounds) == 1
