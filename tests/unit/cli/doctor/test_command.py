"""The doctor before servers that are not what one thinks."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.cli.doctor import probes
from nat_dynamo_plugin.cli.doctor.command import examine, show
from nat_dynamo_plugin.cli.doctor.findings import Finding, Seen, exit_code

MODELS = {"data": [{"id": "big"}]}
ANSWER: dict[str, Any] = {
    "choices": [{"message": {"content": "x"}}],
    "usage": {"prompt_tokens": 300, "prompt_tokens_details": {"cached_tokens": 288}},
    "nvext": {"timing": {"kv_hit_rate": 0.9}, "worker_id": {"decode_worker_id": 1}},
}


class Server(ThreadingHTTPServer):
    """Answers what it is told."""

    answer: Any = ANSWER
    page: bytes | None = None
    moved_to: str | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.logins: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.logins.append(self.headers["authorization"])
        self._say({"instances": []} if self.path.endswith("/health") else MODELS)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._say(self.server.answer)

    def _say(self, data: Any) -> None:
        moved, page = self.server.moved_to, self.server.page
        body = page if page is not None else json.dumps(data).encode()
        self.send_response(200 if moved is None else 307)
        if moved is not None:
            self.send_header("location", moved + self.path.removeprefix("/v1"))
        self.send_header("content-type", "application/json" if page is None else "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    server = Server()
    for name, value in settings.items():
        setattr(server, name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def look(url: str) -> dict[str, Finding]:
    return {one.topic: one for one in asyncio.run(examine(url, None, None))}


def test_a_password_in_the_url_is_used_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        found = look(server.url.replace("//", "//me:pa%2Fss@"))
        show(list(found.values()))
        assert "pa%2Fss" not in repr(found) + capsys.readouterr().out
        assert found["model"].state == "ok"
        assert set(server.logins) == {f"Basic {base64.b64encode(b'me:pa/ss').decode()}"}


def test_a_redirect_is_followed_and_named() -> None:
    with serving() as server, serving(moved_to=server.url) as old:
        found = look(old.url)
        assert found["redirect"].seen.startswith(f"{old.url}/models: 307, redirected to {server.url}/models")
        assert found["redirect"].change == f"base_url: {server.url}" and found["model"].state == "ok"


def test_a_page_is_no_list_of_models() -> None:
    with serving(page=b"<h1>Welcome</h1>") as server:
        found = look(server.url)
        assert found["path"].seen == f"GET {server.url}/models: 200, text/html: no list of models"
        assert found["model"].unreachable and exit_code(list(found.values())) == 2


@pytest.mark.parametrize(
    "odd",
    [
        {"nvext": {"timing": "x", "worker_id": 3}},
        {"nvext": [1]},
        {"usage": [1]},
        {"usage": {"prompt_tokens_details": [1]}},
    ],
)
def test_odd_answers_are_answers(odd: Any) -> None:
    with serving(answer=ANSWER | odd) as server:
        assert look(server.url)["model"].state == "ok"


def test_after_a_minute_no_more_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "LOOK_S", 0.0)

    async def look_at(url: str) -> Seen:
        seen = Seen(["big"], "big")
        async with httpx.AsyncClient() as client:
            await probes.Prober(client, url, seen).look(load=False)
        return seen

    with serving() as server:
        assert asyncio.run(look_at(server.url)).late_s == 0.0


def test_a_proxy_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:hunter2@127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    found = look("http://dynamo.invalid/v1")
    assert "http://127.0.0.1:1, named by the environment" in found["proxy"].seen and "hunter2" not in repr(found)
    monkeypatch.setenv("HTTP_PROXY", "nonsense://127.0.0.1:1")
    assert look("http://dynamo.invalid/v1")["proxy"].unreachable


@pytest.mark.parametrize("proxy", ["http://me:hunter2@127.0.0.1:99999", "127.0.0.1:70000", "http://me:hunter2@h:x"])
def test_a_proxy_with_a_port_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    found = look("http://dynamo.invalid/v1")["proxy"]
    assert found.unreachable and "port" in found.seen and "HTTP_PROXY" in found.change
    assert "hunter2" not in repr(found)


def test_a_port_above_the_highest_is_named() -> None:
    assert "a port from 1 to 65535" in look("http://127.0.0.1:70000/v1")["URL"].seen


def test_brackets_around_an_ipv6_address() -> None:
    assert "[::1]:1 " in look("http://[::1]:1/v1")["TCP"].seen
