"""What stands between the frontend and a simulated worker, without Dynamo: messages, and which answers go on where."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.local.answers import AnswerBook, ScriptedAnswer
from nat_dynamo_plugin.local.model import answer_opening, eos_token_id, load_tokenizer, tokenizer_file
from nat_dynamo_plugin.local.relay import OPENING, Frame, Relay, Scripts, going_on, own_ports, rest_key, trace_lines

OPEN = [1, 7, 8]
WHOLE = [20, 21, 22, 2]
SCRIPTS = Scripts(OPEN, {"a": WHOLE, "long": [9] * 5}, {"a"})


def request(token_ids: list[int], key: str | None = "a", **more: Any) -> bytes:
    annotations = ["other:x"] if key is None else ["other:x", f"output_replay_id:{key}"]
    stop = {"max_tokens": 64, "stop": None}
    return msgspec.msgpack.encode(
        {"model": "m", "token_ids": token_ids, "stop_conditions": stop, "annotations": annotations} | more
    )


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_request_that_goes_on_gets_the_rest_and_nothing_else_changes(place: int) -> None:
    before = request([1, 5, *OPEN, *WHOLE[:place]], routing={"dp_rank": 0})
    after = msgspec.msgpack.decode(going_on(before, SCRIPTS))
    assert after["annotations"] == ["other:x", f"output_replay_id:{rest_key('a', place)}"]
    assert after | {"annotations": 0} == msgspec.msgpack.decode(before) | {"annotations": 0}


@pytest.mark.parametrize(
    ("token_ids", "key"),
    [
        ([1, 5, *OPEN], "a"),  # a first request
        ([1, 5, *OPEN, 20, *OPEN], "a"),  # of a conversation
        ([5, 6, 20, 21], "a"),  # no chat
        ([1, 5, 20], "a"),  # no answer was opened
        ([*OPEN, 20], None),  # no scripted answer
        ([*OPEN, 20], "unknown"),  # random tokens
        ([], "a"),
    ],
)
def test_other_requests_are_left_alone(token_ids: list[int], key: str | None) -> None:
    body = request(token_ids, key)
    assert going_on(body, SCRIPTS) == body


@pytest.mark.parametrize(
    ("said", "key"), [([99], "a"), ([20, 99], "a"), (WHOLE, "a"), ([*WHOLE, 20], "a"), ([9], "long")]
)
def test_what_can_not_go_on_is_refused_and_never_said_again(said: list[int], key: str) -> None:
    after = msgspec.msgpack.decode(going_on(request([*OPEN, *said], key), SCRIPTS))
    assert after["stop_conditions"]["max_tokens"] is None


@given(st.binary())
def test_what_is_no_request_is_left_alone(body: bytes) -> None:
    assert going_on(body, SCRIPTS) == body


def test_the_trace_has_the_rests_of_every_answer(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_file())
    book = AnswerBook([ScriptedAnswer("k", "Größe <|im_start|> 7"), ScriptedAnswer("longer", "word " * 40)])
    opening = answer_opening(tokenizer)
    trace = tmp_path / "answers.jsonl"
    trace.write_text("".join(book.replay_trace(tokenizer, eos_token_id(), opening=opening)))
    rows = {row["request_id"]: row["output_token_ids"] for row in map(json.loads, trace.read_text().splitlines())}
    for key in book.keys:
        # What opens a turn must not be in an answer, or the relay would not find where it began.
        assert opening[0] not in rows[key]
        for place in range(1, len(rows[key])):
            assert rows[rest_key(key, place)] == rows[key][place:]
    scripts = Scripts.read(trace)
    assert (scripts.opening, scripts.resumable) == (opening, book.keys)
    assert scripts.answers == {key: rows[key] for key in book.keys}


def test_without_room_the_longest_answers_have_no_rests(tmp_path: Path) -> None:
    trace = tmp_path / "answers.jsonl"
    answers = {"long": [9] * 40 + [2], "short": [9, 2]}
    trace.write_text("".join(trace_lines(answers, OPEN, most_rests=10)))
    scripts = Scripts.read(trace)
    assert scripts.resumable == {"short"}
    assert set(scripts.answers) == {"short", "long"}


def test_without_migration_there_are_no_rests() -> None:
    tokenizer = load_tokenizer(tokenizer_file())
    book = AnswerBook([ScriptedAnswer("k", "word " * 4)])
    assert OPENING not in "".join(book.replay_trace(tokenizer, eos_token_id()))


@given(st.binary(max_size=99), st.binary(max_size=99), st.binary(max_size=99), st.binary(max_size=300))
async def test_a_message_comes_out_as_it_went_in(path: bytes, headers: bytes, control: bytes, body: bytes) -> None:
    frame = Frame(path, headers, control, 0, body)
    reader = asyncio.StreamReader()
    reader.feed_data(frame.encoded() * 2)
    assert [await Frame.read(reader), await Frame.read(reader)] == [frame, frame]


@pytest.mark.parametrize(
    "wrong", [b"\0\0\0\x01", b"\xff\xff\xff\xff", b"\0\0\0\x18" + b"\0" * 7 + b"\x01" + b"\0" * 16]
)
async def test_what_is_no_message_is_said(wrong: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\0\0\0\0" + wrong)
    with pytest.raises(ValueError, match="payload"):
        await Frame.read(reader)


def test_own_ports_are_those_on_which_this_process_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in set(own_ports())
    assert port not in set(own_ports())


async def test_it_takes_the_place_of_a_worker_of_this_process_only(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((await Frame.read(reader)).body)
        writer.write(b"\0\0\0\0")
        await writer.drain()
        writer.close()

    worker = await asyncio.start_server(work, "127.0.0.1", 0)
    port = worker.sockets[0].getsockname()[1]
    instances = tmp_path / "discovery" / "v1" / "instances"
    instances.mkdir(parents=True)

    def file(name: str, port: int, endpoint: str = "generate") -> Path:
        entry = {"endpoint": endpoint, "transport": {"tcp": f"127.0.0.1:{port}/1/dynamo/backend/{endpoint}"}}
        (instances / name).write_text(json.dumps(entry))
        return instances / name

    mine, query, other = file("mine", port), file("query", port, "query"), file("other", 1)
    (instances / "odd").write_text("no JSON")
    before = query.read_text(), other.read_text()
    running = asyncio.ensure_future(Relay(SCRIPTS, tmp_path / "discovery")._run())
    while f"127.0.0.1:{port}/" in mine.read_text():  # noqa: ASYNC110
        await asyncio.sleep(0)
    later = file("later", port)  # once it is replaced, all files have been looked at after the first was
    while f"127.0.0.1:{port}/" in later.read_text():  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (query.read_text(), other.read_text()) == before
    host, _, rest = json.loads(mine.read_text())["transport"]["tcp"].partition(":")
    assert rest.endswith("/1/dynamo/backend/generate")
    reader, writer = await asyncio.open_connection(host, int(rest.partition("/")[0]))
    writer.write(Frame(b"p", b"{}", b"{}", 0, request([*OPEN, 20])).encoded())
    assert await reader.readexactly(4) == b"\0\0\0\0"
    assert rest_key("a", 1).encode() in got[0]
    assert await reader.read() == b""  # closed with the worker's own
    writer.close()
    running.cancel()
    worker.close()
