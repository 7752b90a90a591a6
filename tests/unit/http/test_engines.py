"""The engines: the same answers and the same exceptions from each, for httpx and httpx2, sync and async."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nat_dynamo_plugin.http.engines import HTTPX_SLOW_CALLS, Connection, Engines, proxy_for

from .conftest import Post
from .peers import OK, Serve, Server, hangs, request_of, reset, says, shell

ENGINES = ("httpx", "fast")
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

FAULTS: dict[str, Serve] = {
    "closed before headers": says(),
    "reset before headers": says(then=reset),
    "closed within headers": says(OK + b"content-le"),
    "reset within headers": says(OK + b"content-le", then=reset),
    "hangs before headers": says(then=hangs),
    "hangs within headers": says(OK, then=hangs),
    "no HTTP": says(b"220 smtp ready\r\n\r\n"),
    "a body too short": says(OK + b"content-length: 10\r\n\r\nabc"),
    "a body reset": says(OK + b"content-length: 10\r\n\r\nabc", then=reset),
    "a body that hangs": says(OK + b"content-length: 10\r\n\r\nabc", then=hangs),
    "chunks cut": says(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    "chunks cut within one": says(OK + b"transfer-encoding: chunked\r\n\r\nff\r\nabc"),
    "chunks of garbage": says(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
    "chunks that hang": says(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", then=hangs),
}


def assert_same_exception(post: Post, library: ModuleType, url: str, **kwargs: Any) -> str:
    """That every engine raises the same; gives its name."""
    raised = []
    for engine in ENGINES:
        with pytest.raises(library.TransportError) as error:
            post(url, engine, **kwargs)
        assert str(error.value) or engine == "httpx"
        raised.append(type(error.value).__name__)
    assert raised[0] == raised[1]
    return raised[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_exception_of_a_fault_is_that_of_httpx(server: Server, post: Post, library: ModuleType, fault: str) -> None:
    server.serve = FAULTS[fault]
    assert_same_exception(post, library, server.url, read_s=0.3)


def test_nobody_there(post: Post, library: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/chat/completions"
    for engine in ("httpx", "fast"):
        with pytest.raises(library.ConnectError):
            post(url, engine)
        with pytest.raises(library.ConnectError):
            post("http://no-such-host.invalid/v1/chat/completions", engine)
        with pytest.raises(library.ConnectError):
            post(url.replace("http:", "https:"), engine)


def test_tls_to_a_plain_port(server: Server, post: Post, library: ModuleType) -> None:
    server.serve = lambda connection: connection.sendall(b"HTTP/1.1 400 no TLS here\r\n\r\n")
    for engine in ("httpx", "fast"):
        with pytest.raises(library.ConnectError):
            post(server.url.replace("http:", "https:"), engine)


@pytest.mark.parametrize("engine", ["fast", "httpx"])
def test_what_is_sent_is_what_the_caller_gave(server: Server, post: Post, engine: str) -> None:
    server.serve = server.answers
    response = post(server.url, engine, headers={"X-Case": "a b", "x-twice": "1"})
    assert response.json() == {"a": 1} and response.headers.get_list("x-twice") == ["a", "b"]
    assert response.http_version == "HTTP/1.1" and response.reason_phrase == "OK"
    head = server.heads[0]
    assert head.startswith(b"POST /v1/chat/completions?a=%2F HTTP/1.1\r\n")
    lines = [line.lower().split(b": ")[0] for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    names = {b"host", b"accept", b"accept-encoding", b"user-agent", b"content-length", b"content-type"}
    assert set(lines) - {b"connection"} == names | {b"x-case", b"x-twice"} and len(lines) == len(set(lines))


@pytest.mark.parametrize("engine", ["fast", "httpx"])
def test_a_request_in_pieces(server: Server, post: Post, engine: str) -> None:
    server.serve = server.answers
    body = b"x" * 100_000
    assert post(server.url, engine, json=None, content=body).content == body


@pytest.mark.parametrize("engine", ["fast", "httpx"])
def test_the_environments_proxy(server: Server, post: Post, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve = server.answers
    proxy = server.url.partition("/v1")[0]
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert post("http://llm.invalid/v1/chat/completions", engine).json() == {"a": 1}
    assert server.heads[0].startswith(b"POST http://llm.invalid/v1/chat/completions HTTP/1.1\r\n")


def test_which_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_for("http://a/v1") is None
    monkeypatch.setenv("https_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", "b.example,localhost")
    assert proxy_for("https://a/v1") == "http://proxy:3128" and proxy_for("http://a/v1") is None
    assert proxy_for("https://b.example:8443/v1") is None and proxy_for("https://sub.b.example/v1") is None
    assert proxy_for(None) == "http://proxy:3128"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_connection_in_time(post: Post, library: ModuleType, scheme: str) -> None:
    # Once its queue is full, Linux lets further connections wait.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(8):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        url = f"{scheme}://127.0.0.1:{full.getsockname()[1]}/v1/chat/completions"
        assert assert_same_exception(post, library, url, connect_s=0.2) == "ConnectTimeout"
        for one in waiting:
            one.close()


def test_no_tls_in_time(server: Server, post: Post, library: ModuleType) -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    server.serve = silent
    url = server.url.replace("http:", "https:")
    assert assert_same_exception(post, library, url, connect_s=0.2) == "ConnectTimeout"


def test_a_server_that_does_not_take_the_body(server: Server, post: Post, library: ModuleType) -> None:
    go = threading.Event()
    server.serve = lambda connection: go.wait(30) and None
    url, body = server.url, b"x" * 30_000_000
    assert assert_same_exception(post, library, url, write_s=0.3, connect_s=20.0, content=body) == "WriteTimeout"
    go.set()


def test_taking_the_body_may_last_longer_than_connecting(server: Server, post: Post) -> None:
    def slow(connection: socket.socket) -> None:
        threading.Event().wait(0.5)
        server.answers(connection)

    server.serve = slow
    body = b"x" * 30_000_000
    assert len(post(server.url, content=body, connect_s=0.2, read_s=30.0, write_s=30.0).content) == len(body)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_before_the_body_was_taken(server: Server, post: Post, library: ModuleType, engine: str) -> None:
    def refuses(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 too much\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1_048_576):
            pass

    server.serve = refuses
    response = post(server.url, engine, content=b"x" * 30_000_000)
    assert (response.status_code, response.content) == (413, b"big")


@pytest.mark.parametrize("engine", ENGINES)
def test_redirects_are_the_layers_business(server: Server, post: Post, engine: str) -> None:
    server.serve = says(b"HTTP/1.1 307 there\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n")
    response = post(server.url, engine)
    assert (response.status_code, response.headers["location"]) == (307, "/there")
    assert server.connections == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_requests_without_a_body(server: Server, post: Post, engine: str, method: str) -> None:
    server.serve = server.answers
    assert post(server.url, engine, method=method).status_code == 200
    head = server.heads[0].lower()
    assert head.startswith(method.lower().encode()) and b"transfer-encoding" not in head and b"content-type" not in head


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_a_body(server: Server, post: Post, engine: str, status: bytes) -> None:
    server.serve = says(b"HTTP/1.1 " + status + b"\r\nserver: s\r\n\r\n")
    response = post(server.url, engine)
    assert (response.status_code, response.content) == (int(status[:3]), b"")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_head_without_a_length(server: Server, post: Post, engine: str) -> None:
    server.serve = says(OK + b"server: s\r\n\r\n")
    assert post(server.url, engine, method="HEAD").status_code == 200


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_of_an_old_server(server: Server, post: Post, engine: str) -> None:
    server.serve = says(b"HTTP/1.0 200 Sch\xf6n\r\nserver: s\r\n\r\nhello")
    response = post(server.url, engine)
    assert (response.http_version, response.content, response.reason_phrase) == ("HTTP/1.0", b"hello", "Schn")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_announced_twice(server: Server, post: Post, engine: str) -> None:
    server.serve = says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nok")
    assert post(server.url, engine).content == b"ok"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_and_a_password_in_the_url(server: Server, post: Post, engine: str) -> None:
    server.serve = server.answers
    assert post(server.url.replace("//", "//me:a%40b@"), engine).status_code == 200
    head = server.heads[0]
    assert head.startswith(b"POST /v1/") and b"me" not in head.split(b"\r\n")[1]
    assert b"\r\nauthorization: basic " + base64.b64encode(b"me:a@b").lower() in head.lower()


def test_headers_that_are_none(server: Server, post: Post, library: ModuleType) -> None:
    server.serve = server.answers
    headers = {"x-two": "lines\r\nx-more: 1"}
    assert assert_same_exception(post, library, server.url, headers=headers) == "LocalProtocolError"
    assert server.heads == []


@pytest.mark.parametrize("value", ["é".encode(), "日本".encode(), b"\xe9"])
def test_bytes_of_headers(server: Server, post: Post, library: ModuleType, value: bytes) -> None:
    server.serve = server.answers
    if value == b"\xe9" and post.is_async:  # type: ignore[attr-defined]
        # aiohttp cannot send it, so it must not send something else.
        with pytest.raises(library.LocalProtocolError, match="utf-8"):
            post(server.url, headers=[(b"x-name", value)])
    else:
        post(server.url, headers=[(b"x-name", value)])
        assert b"x-name: " + value + b"\r\n" in server.heads[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [None, 200_000])
def test_a_body_of_an_iterator(server: Server, post: Post, engine: str, length: int | None) -> None:
    server.serve = server.answers
    pieces = [b"a" * 100_000, b"", b"b" * 100_000]

    def blocking() -> Iterator[bytes]:
        yield from pieces

    async def awaiting() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    headers = {} if length is None else {"content-length": str(length)}
    content = awaiting() if post.is_async else blocking()  # type: ignore[attr-defined]
    assert post(server.url, engine, content=content, headers=headers).status_code == 200
    head, _, body = server.heads[0].partition(b"\r\n\r\n")
    assert head.lower().count(b"transfer-encoding: chunked") == (length is None)
    assert body.count(b"a") - (length is None) * body.count(b"\r\na") <= 100_001 and body.count(b"b") >= 100_000


@pytest.mark.parametrize("engine", ENGINES)
def test_an_iterator_that_fails(server: Server, post: Post, engine: str) -> None:
    server.serve = server.answers

    def blocking() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    async def awaiting() -> AsyncIterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        post(server.url, engine, content=awaiting() if post.is_async else blocking())  # type: ignore[attr-defined]


def through(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Have the environment name a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("https_proxy", proxy)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_proxy_with_a_password(server: Server, post: Post, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve = server.answers
    through(monkeypatch, f"http://me:a%40b@127.0.0.1:{server.port}")
    assert post("http://you:c@llm.invalid/v1/chat/completions", engine).json() == {"a": 1}
    head = server.heads[0]
    assert head.startswith(b"POST http://llm.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nproxy-authorization: basic " + base64.b64encode(b"me:a@b").lower() in head.lower()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tunnel(
    server: Server, tls_server: Server, tls: tuple[Path, Any], post: Post, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def tunnel(connection: socket.socket) -> None:
        asked.append(request_of(connection))
        with socket.create_connection(("127.0.0.1", tls_server.port)) as there:
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=pipe, args=(there, connection))
            back.start()
            pipe(connection, there)
            back.join()

    def pipe(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    server.serve = tunnel
    through(monkeypatch, f"http://me:a%40b@127.0.0.1:{server.port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
    assert post(tls_server.url, engine).json() == {"a": 1}
    head = asked[0].lower()
    assert head.startswith(f"connect 127.0.0.1:{tls_server.port} ".encode())
    assert b"\r\nproxy-authorization: basic " + base64.b64encode(b"me:a@b").lower() in head
    assert b"proxy-authorization" not in tls_server.heads[0].lower()


def test_a_proxy_that_refuses(server: Server, post: Post, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve = says(b"HTTP/1.1 407 who are you\r\ncontent-length: 0\r\n\r\n")
    through(monkeypatch, f"http://127.0.0.1:{server.port}")
    assert assert_same_exception(post, library, "https://llm.invalid/v1/chat/completions") == "ProxyError"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_proxy_there(post: Post, library: ModuleType, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
    through(monkeypatch, proxy)
    assert assert_same_exception(post, library, f"{scheme}://llm.invalid/v1/chat/completions") == "ConnectError"


def test_certificates(
    tls_server: Server, tls: tuple[Path, Any], post: Post, library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert assert_same_exception(post, library, tls_server.url) == "ConnectError"
    for engine in ENGINES:
        assert post(tls_server.url, engine, verify_ssl=False).json() == {"a": 1}
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
    for engine in ENGINES:
        assert post(tls_server.url, engine).json() == {"a": 1}
        with pytest.raises(library.ConnectError):
            post(tls_server.url, engine, trust_env=False)
        with pytest.raises(library.ConnectError):  # not its name
            post(tls_server.url.replace("127.0.0.1", "localhost"), engine)


@pytest.mark.parametrize("fields", [{"http2": True}, {"engine": "httpx"}])
async def test_what_only_httpx_speaks(library: ModuleType, fields: dict[str, Any]) -> None:
    engines = Engines(library, Connection(**fields), "http://127.0.0.1:1/v1")
    assert isinstance(engines.sync()._transport, library.HTTPTransport)
    assert isinstance(engines.asynchronous()._transport._transport, library.AsyncHTTPTransport)


async def test_httpx_says_once_when_it_is_crowded(
    server: Server, library: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    server.serve = server.answers

    async def ask(count: int, engine: Any) -> list[str]:
        caplog.clear()
        engines = Engines(library, Connection(engine=engine), server.url)
        async with library.AsyncClient(transport=shell(library, engines.asynchronous()), timeout=60) as client:
            for _ in range(2):
                await asyncio.gather(*(client.post(server.url, json={}) for _ in range(count)))
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    assert await ask(HTTPX_SLOW_CALLS, "httpx") == []
    assert await ask(HTTPX_SLOW_CALLS + 1, "fast") == []
    [said] = await ask(HTTPX_SLOW_CALLS + 1, "httpx")
    assert said.startswith("Over 64 calls") and said.endswith("leave connection.engine at fast")


def test_a_closed_client_leaves_no_connection_though_its_exception_is_kept(server: Server, library: ModuleType) -> None:
    def serve(connection: socket.socket) -> None:
        if server.connections == 1:
            request_of(connection)
            hangs(connection)
        else:
            server.answers(connection)

    server.serve = serve
    engine = Engines(library, Connection(), server.url).sync()
    with library.Client(transport=shell(library, engine), timeout=library.Timeout(5.0, read=0.2)) as client:
        with pytest.raises(library.ReadTimeout) as kept:
            client.post(server.url, json={})
        assert client.post(server.url, json={"a": 1}).json() == {"a": 1}
    for _ in range(500):
        if server.over == server.connections == 2:
            break
        threading.Event().wait(0.01)
    assert server.over == 2 and kept.value is not None


@pytest.mark.parametrize("engine", ENGINES)
def test_interim_answers_are_passed_over(server: Server, post: Post, engine: str) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    server.serve = says(hints + hints + OK + b"content-length: 2\r\n\r\n{}")
    assert post(server.url, engine).json() == {}


def test_interim_answers_without_end(server: Server, library: ModuleType) -> None:
    server.serve = says(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
    engine = Engines(library, Connection(), server.url).sync()
    with (
        library.Client(transport=shell(library, engine)) as client,
        pytest.raises(library.TransportError, match="interim"),
    ):
        client.post(server.url, json={})
