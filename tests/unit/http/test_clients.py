"""The httpx clients of a config: timeouts, limits, event loops, the shape of errors, and their end."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.http.clients import HttpClients
from nat_dynamo_plugin.http.engines import Engines
from nat_dynamo_plugin.service import make_service

ANSWER = b'{"choices": [{"message": {}, "finish_reason": "stop"}]}'


class Server(ThreadingHTTPServer):
    """Answers every request, and counts the connections."""

    daemon_threads = True
    connections = 0
    open_connections = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        self.server.connections += 1
        self.server.open_connections += 1
        super().setup()

    def finish(self) -> None:
        self.server.open_connections -= 1
        super().finish()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def config_for(server: Server, **fields: object) -> DynamoModelConfig:
    return DynamoModelConfig.model_validate(
        {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "model_name": "m", **fields}
    )


def http_clients(config: DynamoModelConfig) -> AbstractAsyncContextManager[HttpClients]:
    return make_service(config).http_clients()


async def closed(server: Server) -> bool:
    for _ in range(250):
        if server.open_connections == 0:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_both_clients_keep_their_connection_and_close_it_at_the_end(server: Server) -> None:
    async with http_clients(config_for(server)) as http:
        for _ in range(3):
            assert http.sync.post(f"{http.base_url}/chat/completions", json={}).status_code == 200
            assert (await http.asynchronous.post(f"{http.base_url}/chat/completions", json={})).status_code == 200
        assert server.connections == server.open_connections == 2
    assert await closed(server)
    assert http.sync.is_closed
    assert http.asynchronous.is_closed


async def test_the_async_client_works_in_loops_that_come_and_go(server: Server) -> None:
    async with http_clients(config_for(server)) as http:
        url = f"{http.base_url}/chat/completions"

        async def ask() -> list[int]:
            answers = await asyncio.gather(*(http.asynchronous.post(url, json={}) for _ in range(3)))
            return [answer.status_code for answer in answers]

        assert await ask() == [200] * 3
        for _ in range(3):
            # A loop of its own, as Strands makes one for each synchronous call.
            assert await asyncio.to_thread(lambda: asyncio.run(ask())) == [200] * 3
        assert await ask() == [200] * 3
        # Those loops left no connection behind; the home loop kept its three.
        for _ in range(250):
            if server.open_connections == 3:
                break
            await asyncio.sleep(0.02)
        assert server.open_connections == 3
    assert await closed(server)


def test_the_four_timeouts_and_the_limits_are_those_of_the_config() -> None:
    config = DynamoModelConfig(
        model_name="m", request_timeout=7.0, connect_timeout=2.0, pool_timeout=3.0, max_connections=5
    )
    connection = make_service(config).connection
    timeout = connection.timeout(httpx)
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (2.0, 7.0, 7.0, 3.0)
    limits = Engines(httpx, connection, None)._arguments(None)["limits"]
    assert limits == httpx.Limits(max_connections=5, max_keepalive_connections=5)


async def test_no_more_connections_than_allowed(server: Server) -> None:
    async with http_clients(config_for(server, max_connections=2)) as http:
        url = f"{http.base_url}/chat/completions"
        await asyncio.gather(*(http.asynchronous.post(url, json={}) for _ in range(10)))
    assert server.connections <= 2


async def test_http2_without_its_package_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(ValueError, match=r"http2=True: .* install httpx\[http2\]"):
        async with http_clients(config_for(server, http2=True)):
            pass


async def test_http2_is_offered_where_its_package_is(server: Server) -> None:
    pytest.importorskip("h2")
    # Without TLS there is nothing to negotiate, so the call goes through as HTTP/1.1.
    async with http_clients(config_for(server, http2=True)) as http:
        assert (await http.asynchronous.post(f"{http.base_url}/chat/completions", json={})).http_version == "HTTP/1.1"


@pytest.mark.parametrize("engine", ["fast", "httpx"])
@pytest.mark.parametrize("heeded", [True, False])
async def test_the_environments_proxy_for_this_server_is_used_unless_told_not_to(
    server: Server, monkeypatch: pytest.MonkeyPatch, engine: str, heeded: bool
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    config = DynamoModelConfig(
        model_name="m",
        base_url="http://llm.invalid/v1",
        retry={"max_retries": 0},
        connection={"trust_env": heeded, "engine": engine},
    )
    async with make_service(config).http_clients() as http:
        for post in (http.asynchronous.post, partial(asyncio.to_thread, http.sync.post)):
            if heeded:
                assert (await post("http://llm.invalid/v1/chat/completions", json={})).content == ANSWER
            else:
                with pytest.raises(httpx.ConnectError):
                    await post("http://llm.invalid/v1/chat/completions", json={})
    assert (server.connections > 0) is heeded
