"""The doctor before real servers: a Dynamo with each setting that it is to tell apart, and what is no Dynamo."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest

from nat_dynamo_plugin.cli.doctor.command import examine
from nat_dynamo_plugin.cli.doctor.findings import Finding, exit_code
from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

from .plain_server import serving


def look(base_url: str, model: str | None = None, *, load: bool = False) -> dict[str, Finding]:
    return {one.topic: one for one in asyncio.run(examine(base_url, model, None, load=load))}


def states(found: dict[str, Finding], *topics: str) -> list[str]:
    return [found[topic].state for topic in topics]


@contextmanager
def embedded(**settings: Any) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    dynamo = LocalDynamo(LocalDynamoConfig(workers=2, speedup=2, **settings))
    loop.run_until_complete(dynamo.start())
    try:
        yield dynamo.base_url
    finally:
        loop.run_until_complete(dynamo.stop())
        loop.close()


def test_the_recommended_flags() -> None:
    with embedded(queue_threshold=0) as url:
        found = look(url, load=True)
        topics = ("server", "cached tokens", "timing", "hints", "router", "sessions", "affinity mode", "queue")
        assert states(found, *topics) == ["ok"] * len(topics), found
        assert found["priority"].state == "ok", found["priority"]
        assert exit_code(list(found.values())) == 0
        wrong = look(url, "nat-dynamo-locl")
        assert wrong["model"].change == "model_name: did you mean nat-dynamo-local?"
        assert exit_code(list(wrong.values())) == 2
        assert look(url.removesuffix("/v1"))["path"].change == f"base_url: {url}"
        tls = look(url.replace("http:", "https:"))["TLS"]
        assert tls.unreachable and tls.change == f"base_url: {url}"


def test_no_queue_and_no_affinity() -> None:
    with embedded(session_affinity_ttl_s=None) as url:
        found = look(url)
        assert states(found, "hints", "router", "sessions", "queue") == ["ok", "ok", "bad", "warning"], found
        assert exit_code(list(found.values())) == 1


def test_hard_affinity() -> None:
    with embedded(session_affinity_mode="hard", queue_threshold=0) as url:
        assert states(look(url), "sessions", "affinity mode") == ["ok", "warning"]


def test_round_robin() -> None:
    with embedded(router_mode="round-robin", session_affinity_ttl_s=None) as url:
        found = look(url)
        assert states(found, "router", "sessions", "cached tokens") == ["bad", "bad", "ok"], found


class Other(BaseHTTPRequestHandler):
    """A server that speaks OpenAI's protocol and is no Dynamo."""

    refuses: ClassVar[bool] = False

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _say(self, status: int, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._say(200, {"data": [{"id": "m"}]})
        else:
            self._say(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.refuses and "nvext" in asked:
            self._say(422, {"error": {"message": "Extra inputs are not permitted: nvext"}})
        else:
            self._say(200, {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 5}})


def other(*, refuses: bool) -> AbstractContextManager[str]:
    return serving(type("Handler", (Other,), {"refuses": refuses}))


def test_a_server_that_refuses_unknown_fields() -> None:
    with other(refuses=True) as url:
        found = look(url)
        assert "Extra inputs are not permitted: nvext" in found["hints"].seen
        assert exit_code(list(found.values())) == 1


def test_a_server_that_ignores_them() -> None:
    with other(refuses=False) as url:
        found = look(url)
        assert "ignores them" in found["hints"].seen and found["server"].state == "warning"
        assert "usage names no cached tokens" in found["cached tokens"].seen


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def test_a_port_that_accepts_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.cli.doctor.reach.STEP_S", 0.2)

    async def run() -> list[Finding]:
        async with silent() as url:
            return await examine(url, None, None)

    found = asyncio.run(run())
    assert [one.topic for one in found] == ["answer"] and "accepts connections and does not answer" in found[0].seen
    assert exit_code(found) == 2


@pytest.mark.parametrize(
    ("url", "topic", "says"),
    [
        ("http://127.0.0.1:1/v1", "TCP", "nothing listens on 127.0.0.1:1"),
        ("http://no-such-host.invalid/v1", "DNS", "'no-such-host.invalid' has no address"),
        ("localhost:8000", "URL", "did you mean http://localhost:8000/v1?"),
    ],
)
def test_nobody_there(url: str, topic: str, says: str) -> None:
    found = look(url)
    assert list(found) == [topic] and says in found[topic].seen
    assert exit_code(list(found.values())) == 2
