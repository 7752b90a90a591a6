"""The fault server does what its faults say; asked over bare sockets, byte by byte."""

from __future__ import annotations

import gzip
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .conftest import settled
from .faults import FAULTS, HALF, PIECES, STREAM, TEXT, WORDS, Outcome, completion, fault, in_chunk
from .server import FaultServer

BODY = json.dumps({"model": "kettle-7b", "messages": []}).encode()
STREAMED = json.dumps({"model": "kettle-7b", "messages": [], "stream": True}).encode()


@contextmanager
def connected(server: FaultServer) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=10) as connection:
        yield connection


def ask(connection: socket.socket, body: bytes = BODY, path: str = "/v1/chat/completions") -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: boiler\r\nX-Seen: yes\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def read(connection: socket.socket, ending: bytes = b"") -> bytes:
    """All bytes up to the end of the connection, or up to `ending`."""
    data = b""
    while not (ending and data.endswith(ending)):
        if not (part := connection.recv(65536)):
            break
        data += part
    return data


def read_until_reset(connection: socket.socket) -> bytes:
    """All bytes before the connection breaks; fails if it ends in the orderly way."""
    data = b""
    with pytest.raises(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


def answer_to(name: str, body: bytes = BODY, ending: bytes = b"") -> bytes:
    """What the first request gets."""
    with FaultServer(FAULTS[name]) as server, connected(server) as connection:
        ask(connection, body)
        return read(connection, ending)


def test_there_are_enough_faults_of_every_kind() -> None:
    assert len(FAULTS) >= 75
    outcomes = Counter(expect.outcome for f in FAULTS.values() for expect in (f.unary, f.streamed) if expect)
    assert set(outcomes) == set(Outcome)
    assert all(f.unary or f.streamed for f in FAULTS.values())
    assert all(f.play for f in FAULTS.values())
    # A client that must recover can only do so if the fault passes, within the retries it has.
    for f in FAULTS.values():
        if f.times is not None:
            assert f.times < f.most
    with pytest.raises(ValueError, match="two faults 'silence'"):
        fault("silence", "Connection", lambda *_: None, None, None)


def test_nobody_listens() -> None:
    with FaultServer(FAULTS["nobody listens"]) as server, pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=10)


def test_closes_and_resets() -> None:
    with FaultServer(FAULTS["closed when opened"]) as server:
        with connected(server) as connection:
            assert read(connection) == b""
        with connected(server) as connection:  # it was played once
            ask(connection)
            assert read(connection, completion()).endswith(completion())
        assert (server.connections, len(server.requests)) == (2, 1)
    assert answer_to("closed before the answer") == b""
    with FaultServer(FAULTS["reset within the status line"]) as server, connected(server) as connection:
        ask(connection)
        assert read_until_reset(connection) == b"HTTP/1.1 2"
    with FaultServer(FAULTS["reset within the body"]) as server, connected(server) as connection:
        ask(connection, STREAMED)
        head, _, body = read_until_reset(connection).partition(b"\r\n\r\n")
        assert body == b"".join(HALF)
        assert f"content-length: {len(STREAM)}".encode() in head


@pytest.mark.parametrize("name", ["chunked body cut", "closed within an event", "closed between events"])
def test_cuts_a_chunked_body(name: str) -> None:
    data = answer_to(name, STREAMED)
    assert b"transfer-encoding: chunked" in data
    assert PIECES[1].encode() in data
    assert not data.endswith(b"0\r\n\r\n")


def test_lies_about_the_length() -> None:
    head, _, body = answer_to("content-length too long").partition(b"\r\n\r\n")
    assert (b"content-length: 9999" in head, body) == (True, completion())
    head, _, body = answer_to("content-length too short").partition(b"\r\n\r\n")
    assert (b"content-length: 60" in head, body) == (True, completion())


def test_compresses() -> None:
    head, _, body = answer_to("gzip", ending=gzip.compress(completion())[-8:]).partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert gzip.decompress(body) == completion()


def test_answers_well_when_the_fault_is_over() -> None:
    with FaultServer(FAULTS["503 twice"]) as server, connected(server) as connection:
        for status in (b"503", b"503", b"200"):
            ask(connection)
            data = read(connection, completion() if status == b"200" else b"503}")
            assert data.startswith(b"HTTP/1.1 " + status)
        assert server.connections == 1
        assert [(r.method, r.path, r.body, r.headers["x-seen"]) for r in server.requests] == [
            ("POST", "/v1/chat/completions", BODY, "yes")
        ] * 3
        assert TEXT.encode() in data


def test_recovers_on_demand() -> None:
    with FaultServer(FAULTS["503, always"]) as server, connected(server) as connection:
        ask(connection)
        read(connection, b"503}")
        server.recover()
        ask(connection)
        assert read(connection, completion()).startswith(b"HTTP/1.1 200")


def test_streams_event_by_event() -> None:
    data = answer_to("no [DONE]", STREAMED, b"0\r\n\r\n")
    for piece in HALF:
        assert in_chunk(piece) in data
    assert b"[DONE]" not in data
    assert b'"finish_reason": "stop"' in data
    data = answer_to("event: error in Dynamo's shape, mid-way", STREAMED, b"0\r\n\r\n")
    assert b"event: error\ndata: {" in data
    assert WORDS.encode() in data


def test_redirects() -> None:
    with FaultServer(FAULTS["307 to another server"]) as server, connected(server) as connection:
        ask(connection)
        head = read(connection, b"\r\n\r\n")
        assert f"location: {server.other_origin}/v1/chat/completions".encode() in head
        host, port = server.other_origin.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as other:
            ask(other)
            assert read(other, completion()).endswith(completion())
        assert (len(server.requests), len(server.strangers)) == (1, 1)


async def test_hangs_until_the_client_leaves() -> None:
    with FaultServer(FAULTS["silence after the first token"]) as server:
        with connected(server) as connection:
            ask(connection, STREAMED)
            assert read(connection, in_chunk(HALF[-1])).count(b"data:") == len(HALF)
            assert server.open_connections == 1
        assert await settled(lambda: server.open_connections == 0)
        assert not server.overrun


async def test_stops_when_the_client_bears_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.server.LIMIT_BYTES", 2**20)
    with FaultServer(FAULTS["500 without end"]) as server, connected(server) as connection:
        ask(connection)
        read_until_reset(connection)
        assert server.overrun == "the client read 1 MB"


async def test_leaving_it_closes_every_connection() -> None:
    server = FaultServer(FAULTS["silence"])
    with server:
        connection = socket.create_connection(server.address, timeout=10)
        ask(connection)
        assert await settled(lambda: len(server.requests) == 1)
    assert read(connection) == b""
    connection.close()
    assert server.open_connections == 0
