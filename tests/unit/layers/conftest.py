"""Runs layers without any HTTP library: a scripted server under the real driver, and no wait is real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.http.flow import Failure, Layer, chained, run, run_async
from nat_dynamo_plugin.http.headers import Headers

URL = "http://127.0.0.1:8000/v1/chat/completions"
Answer = Reply | Failure | Callable[[Call], Reply]


@dataclass
class Scripted:
    """Gives one answer after the other; the last goes on. Keeps what was sent, read, closed and slept."""

    answers: list[Answer]
    sent: list[dict[str, Any]] = field(default_factory=list)
    closed: list[Reply] = field(default_factory=list)
    bodies: dict[int, bytes | Failure] = field(default_factory=dict)

    def transmit(self, call: Call) -> Reply:
        """Send."""
        call.record.attempts += 1
        parts = call.body.parts
        self.sent.append(
            {
                "url": call.url,
                "headers": dict(call.headers),
                "body": call.body.raw if parts is None else b"".join(parts),
            }
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Failure):
            raise answer
        return answer(call) if callable(answer) else answer

    def read(self, reply: Reply, most: int) -> bytes:
        """Read."""
        body = self.bodies.get(id(reply), b"")
        if isinstance(body, Failure):
            raise body
        reply.content = body
        return body

    def close(self, reply: Reply) -> None:
        """Leave."""
        self.closed.append(reply)

    def unread(self, status: int, body: bytes | Failure, headers: dict[str, str] | None = None) -> Reply:
        """A reply whose body has not been read, or breaks when it is."""
        made = Reply.made(status, b"", headers)
        made.content = None
        self.bodies[id(made)] = body
        self.answers.append(made)
        return made


class _Awaited:
    def __init__(self, server: Scripted) -> None:
        self._server = server

    async def transmit(self, call: Call) -> Reply:
        return self._server.transmit(call)

    async def read(self, reply: Reply, most: int) -> bytes:
        return self._server.read(reply, most)

    async def close(self, reply: Reply) -> None:
        self._server.close(reply)


@dataclass
class Driven:
    """Drives calls through layers."""

    asynchronous: bool
    slept: list[float] = field(default_factory=list)

    def call(self, headers: dict[str, str] | None = None, body: bytes = b'{"a":1}', url: str = URL) -> Call:
        """A call as a client makes it."""
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        return Call(SimpleNamespace(method="POST", url=url), "chat_completions", Headers(raw), body)

    def __call__(self, layer: Layer, server: Scripted, call: Call | None = None) -> Reply:
        """The reply to a call."""
        call = call or self.call()
        send = chained([layer])
        if self.asynchronous:
            return asyncio.run(run_async(send(call), _Awaited(server)))
        return run(send(call), server)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Driven:
    driven = Driven(request.param)

    async def sleep(seconds: float) -> None:
        driven.slept.append(seconds)

    monkeypatch.setattr("nat_dynamo_plugin.http.flow.time", SimpleNamespace(sleep=driven.slept.append))
    monkeypatch.setattr("nat_dynamo_plugin.http.flow.anyio", SimpleNamespace(sleep=sleep))
    return driven


@pytest.fixture
def scripted() -> Callable[..., Scripted]:
    """Makes a scripted server."""
    return lambda *answers: Scripted(list(answers))
