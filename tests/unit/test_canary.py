"""From YAML to the wire and back: who gets the key, and where none of it is."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.layers.key_sources import LOOK_S, FileKey
from nat_dynamo_plugin.service import make_service
from nat_dynamo_plugin.telemetry.record import CallRecord
from nat_dynamo_plugin.transport import DynamoTransport

CANARY = "sk-canary-of-the-wire"
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}],
}


class Server:
    """Takes the keys in `good`; tells the others back. Keeps path and key of each request."""

    def __init__(self) -> None:
        self.good = {CANARY}
        self.came: list[tuple[str, str | None]] = []
        self.redirect: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def do_GET(self) -> None:
                given = self.headers["authorization"]
                outer.came.append((self.path, given))
                status, body = outer.answer(self.path, given)
                content = json.dumps(body).encode()
                self.send_response(status)
                if outer.redirect:
                    self.send_header("location", outer.redirect)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, path: str, given: str | None) -> tuple[int, Any]:
        if self.redirect:
            return 307, {}
        if given is None or given.removeprefix("Bearer ") not in self.good:
            return 401, {"error": {"message": f"Incorrect API key provided: {given!r}", "code": "invalid_api_key"}}
        return 200, {"object": "list", "data": []} if path.endswith("/models") else ANSWER

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def ask(client: openai.OpenAI) -> str | None:
    made = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    return made.choices[0].message.content


def client_of(config: DynamoModelConfig, records: list[CallRecord] | None = None) -> openai.OpenAI:
    service = make_service(config, emit_record=(records if records is not None else []).append)
    http = httpx.Client(transport=DynamoTransport(httpx.HTTPTransport(), service))
    return openai.OpenAI(base_url=config.base_url, api_key=service.api_key, http_client=http, max_retries=0)


async def test_calls_and_other_requests_of_both_clients_have_the_key(server: Server) -> None:
    config = DynamoModelConfig(model_name="m", base_url=server.url, api_key=CANARY)  # type: ignore[arg-type]
    async with make_service(config).http_clients() as http:
        assert "canary" not in repr(http) and http.api_key == "unused"
        assert ask(http.openai()) == "Yes."
        assert http.openai().models.list().data == []
        made = await http.async_openai().chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
        assert made.choices[0].message.content == "Yes."
        assert (await http.async_openai().models.list()).data == []
    assert {key for _, key in server.came} == {f"Bearer {CANARY}"} and len(server.came) == 4


async def test_another_server_gets_none(server: Server, other: Server) -> None:
    config = DynamoModelConfig(model_name="m", base_url=server.url, api_key=CANARY)  # type: ignore[arg-type]
    server.redirect = f"{other.url}/elsewhere"
    async with make_service(config).http_clients() as http:
        for client in (http.openai(), http.openai().with_options(base_url=other.url)):
            with pytest.raises(openai.AuthenticationError):
                ask(client)
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
    assert len(other.came) == 4 and not [key for _, key in other.came if key and "canary" in key]


@pytest.mark.parametrize("place", ["env", "file", "clear"])
def test_what_a_server_tells_back_is_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    monkeypatch.setenv("CANARY_API_KEY", f"{CANARY}\n")
    key = {"env": "env:CANARY_API_KEY", "file": f"file:{tmp_path}/key", "clear": f"{CANARY}-2\n"}[place]
    server.good = set()
    records: list[CallRecord] = []
    with caplog.at_level(logging.DEBUG):
        config = DynamoModelConfig(model_name="m", base_url=server.url, api_key=key, max_retries=0)  # type: ignore[arg-type]
        with client_of(config, records) as client, pytest.raises(openai.AuthenticationError) as caught:
            ask(client)
    assert "Incorrect API key provided: 'Bearer ***'" in str(caught.value) and records[0].error is not None
    said = [str(caught.value), repr(caught.value), caught.value.response.text, repr(config), repr(records), caplog.text]
    assert not [text for text in said if "canary" in text.replace("CANARY_API_KEY", "")]
    assert server.came[0][1] == f"Bearer {CANARY}" + ("-2" if place == "clear" else "")


def test_a_rotated_file_is_seen_without_a_restart(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(FileKey.__init__, "__defaults__", (lambda: now[0],))
    (tmp_path / "key").write_text("sk-first-of-two\n")
    server.good = {"sk-first-of-two", "sk-second-of-two"}
    with client_of(DynamoModelConfig(model_name="m", base_url=server.url, api_key=f"file:{tmp_path}/key")) as client:  # type: ignore[arg-type]
        ask(client)
        (tmp_path / "new").write_text("sk-second-of-two\n")
        (tmp_path / "new").replace(tmp_path / "key")
        now[0] += LOOK_S
        ask(client)
    assert [key for _, key in server.came] == ["Bearer sk-first-of-two", "Bearer sk-second-of-two"]


def test_a_password_in_the_url_is_nowhere(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url.replace("127.0.0.1", "ann:canary-password@127.0.0.1")
    config = DynamoModelConfig(model_name="m", base_url=url, api_key="env:NO_SUCH_KEY_AT_ALL")  # type: ignore[arg-type]
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="NO_SUCH_KEY_AT_ALL") as caught:
        make_service(config)
    assert "canary" not in repr(config) + str(caught.value) + caplog.text


def test_certificates_that_nobody_checks_are_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nat_dynamo_plugin.question.once._said", set())

    async def use(url: str) -> None:
        config = DynamoModelConfig(model_name="m", base_url=url, verify_ssl=False, api_key=None)
        async with make_service(config).http_clients():
            pass

    for url in ("http://127.0.0.1:1/v1", "https://127.0.0.1:1/v1", "https://127.0.0.1:1/v1"):
        asyncio.run(use(url))
    assert caplog.text.count("verify_ssl: false: nobody checks the certificate of https://127.0.0.1:1") == 1
    assert "http://127.0.0.1:1" not in caplog.text


def failing(answer: Callable[[httpx.Request], httpx.Response]) -> tuple[Exception, list[CallRecord]]:
    """What a call raises that is answered so, and its record."""
    records: list[CallRecord] = []
    config = DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1", api_key=CANARY, max_retries=0)  # type: ignore[arg-type]
    transport = DynamoTransport(httpx.MockTransport(answer), make_service(config, emit_record=records.append))
    with (
        httpx.Client(transport=transport) as http,
        openai.OpenAI(base_url=config.base_url, api_key="unused", http_client=http, max_retries=0) as client,
        pytest.raises(openai.OpenAIError) as caught,
    ):
        ask(client)
    return caught.value, records


def test_an_exception_of_a_transport() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"Illegal header value {request.headers['authorization']!r}")

    error, records = failing(answer)
    said = "".join(traceback.format_exception(error)) + repr(records)
    assert "Illegal header value 'Bearer ***'" in said and CANARY not in said


def test_an_answer_that_is_an_error_all_the_same() -> None:
    error, records = failing(
        lambda request: httpx.Response(200, json={"error": {"message": request.headers["authorization"]}})
    )
    assert "Bearer ***" in str(error) and records and "canary" not in str(error) + repr(records)


def test_what_a_layer_says_in_the_record() -> None:
    _, records = failing(lambda _: httpx.Response(307, headers={"location": f"gopher://h/{CANARY}"}))
    assert "gopher://h/***" in str(records[0].error) and "canary" not in repr(records)


@pytest.mark.parametrize("known", [True, False], ids=["ours", "the caller's own"])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_error_within_an_answer(streamed: bool, known: bool) -> None:
    key = CANARY if known else "sk-canary-of-a-caller-alone"

    def answer(request: httpx.Request) -> httpx.Response:
        words = {"error": {"message": f"no such key: {request.headers['authorization']}", "code": 401}}
        if not streamed:
            return httpx.Response(200, json=words)
        token = {"choices": [{"index": 0, "delta": {"content": "Ye"}, "finish_reason": None}]}
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in (token, words))
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, stream=httpx.ByteStream(text.encode())
        )

    records: list[CallRecord] = []
    config = DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1", api_key=CANARY, max_retries=0)  # type: ignore[arg-type]
    transport = DynamoTransport(httpx.MockTransport(answer), make_service(config, emit_record=records.append))
    http = httpx.Client(transport=transport)
    with (
        openai.OpenAI(
            base_url=config.base_url, api_key="unused" if known else key, http_client=http, max_retries=0
        ) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        made: Any = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "?"}], stream=streamed
        )
        list(made)
    said = f"{caught.value} {caught.value!r} {caught.value.body} {records}"
    assert "no such key: Bearer ***" in str(caught.value) and "canary" not in said
