"""Lets a scripted answer go on where it was when its worker died: stands between the frontend and a simulated worker.

Dynamo migrates a request by sending it to another worker with the tokens generated so far at the end of its prompt. A
real engine goes on from there. Dynamo 1.6.0's mocker looks up the scripted answer by its key alone and says it from its
start, so that the caller gets the part and then the whole. The mocker is compiled, and so is what migrates.

But the script may hold an answer's rests as answers of their own (`trace_lines`), and requests come to a
worker through a TCP port, apart from the tokens, which leave by another way. So this puts a port of its own in the
place of the worker's, in the file by which the frontend finds it, reads each request, and gives one that goes on the
key of the rest. Where there is no such rest the request fails: no text is better than a wrong one.

Loaded by `engines/mocker_worker.py` as a file, so it imports nothing of this package.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

OPENING = "\x1fopening"
"""Key of the row that holds no answer, but the tokens with which the template opens one."""

ANNOTATION = "output_replay_id:"
MOST_RESTS = 5_000_000
"""Tokens that the rests of all answers may have together: 40 MB or so. BFCL's 200 tasks need a fifth of it."""

_REST = "\x1f"
_POLL_S = 0.02
_LONGEST = 1 << 28  # bytes of a part of a request; more is not believed
_LISTEN = "0A"  # include/net/tcp_states.h, as /proc/net/tcp has it


def rest_key(key: str, place: int) -> str:
    """Key of the rest of an answer from its token `place` on. No answer of a user's has it: theirs are printable."""
    return f"{key}{_REST}{place}"


def trace_lines(
    answers: Mapping[str, list[int]], opening: Sequence[int] | None, most_rests: int = MOST_RESTS
) -> Iterator[str]:
    """The lines of the mocker's `--response-replay-trace-path` file (Mooncake trace with `output_token_ids`).

    Args:
        answers: tokens by key.
        opening: tokens with which the chat template opens an answer; `None`: no answer has to go on elsewhere.
        most_rests: tokens in all rests together, at most; the longest answers go without first.
    """
    for key, ids in answers.items():
        yield _line(key, ids)
    if opening is None:
        return
    yield _line(OPENING, opening)
    room = most_rests
    for key, ids in sorted(answers.items(), key=lambda one: len(one[1])):
        room -= len(ids) * (len(ids) - 1) // 2
        if room < 0:
            return
        for place in range(1, len(ids)):
            yield _line(rest_key(key, place), ids[place:])


def _line(key: str, ids: Sequence[int]) -> str:
    row = {
        "timestamp": 0,
        "request_id": key,
        "input_length": 16,  # required by the format; the mocker takes the real prompt
        "output_length": len(ids),
        "output_token_ids": ids,
        "hash_ids": [0],
    }
    return json.dumps(row, separators=(",", ":")) + "\n"


class _Row(msgspec.Struct):
    request_id: str


class _WholeRow(_Row):
    output_token_ids: list[int]


_row = msgspec.json.Decoder(_Row)
_whole_row = msgspec.json.Decoder(_WholeRow)


class Scripts:
    """The answers as the mocker has them.

    Args:
        opening: the tokens with which an answer begins in the prompt.
        answers: tokens by key.
        resumable: keys of the answers whose rests the mocker has, from every token on.
    """

    def __init__(self, opening: list[int], answers: Mapping[str, list[int]], resumable: Set[str]) -> None:
        self.opening = opening
        self.answers = answers
        self.resumable = resumable

    @classmethod
    def read(cls, trace: Path) -> Scripts:
        """The answers in a `--response-replay-trace-path` file."""
        with trace.open("rb") as lines:
            answers = {}
            for row in map(_whole_row.decode, lines):
                answers[row.request_id] = row.output_token_ids
                if row.request_id == OPENING:
                    break
            # All that follows are rests.
            resumable = {_row.decode(line).request_id.partition(_REST)[0] for line in lines}
        return cls(answers.pop(OPENING, []), answers, resumable)

    def said(self, token_ids: list[int]) -> list[int]:
        """The tokens of the answer that a prompt ends with; none if it is a first request, or no chat."""
        if not self.opening:
            return []
        # The token that opens a turn is in no answer, so the last one opens this answer.
        try:
            place = len(token_ids) - token_ids[::-1].index(self.opening[0]) - 1
        except ValueError:
            return []
        end = place + len(self.opening)
        return token_ids[end:] if token_ids[place:end] == self.opening else []

    def rest(self, key: str, said: list[int]) -> str | None:
        """The key by which the mocker goes on after `said`; `None` if there is none."""
        whole = self.answers.get(key)
        if whole is None:
            return key  # unknown keys get random tokens, so there is nothing to go on with
        is_part = len(said) < len(whole) and whole[: len(said)] == said
        return rest_key(key, len(said)) if is_part and key in self.resumable else None


class _Request(msgspec.Struct):
    token_ids: list[int] = []
    annotations: list[str] | None = None


_request = msgspec.msgpack.Decoder(_Request)


def going_on(body: bytes, scripts: Scripts) -> bytes:
    """A request (msgpack) as the worker shall get it: as it is, or going on with a scripted answer where that was."""
    try:
        request = _request.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body
    said = scripts.said(request.token_ids)
    key = next((a.removeprefix(ANNOTATION) for a in request.annotations or () if a.startswith(ANNOTATION)), None)
    if not said or key is None:
        return body
    whole: dict[str, Any] = msgspec.msgpack.decode(body)
    rest = scripts.rest(key, said)
    if rest is None:
        whole["stop_conditions"] = {**whole.get("stop_conditions", {}), "max_tokens": None}  # which the mocker refuses
    else:
        whole["annotations"] = [
            ANNOTATION + rest if a.startswith(ANNOTATION) else a for a in whole.get("annotations") or ()
        ]
    return msgspec.msgpack.encode(whole)


class Frame(NamedTuple):
    """One message to a worker on Dynamo 1.6.0's TCP request plane. Lengths are big-endian.

    Path and headers (2 bytes of length each), then a payload (4): the lengths of its two parts and a checksum, 8 bytes
    each, a part that says where the answer goes, and the request.
    """

    path: bytes
    headers: bytes
    control: bytes
    checksum: int
    body: bytes

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Frame:
        """The next message. Raises `ValueError` if it is none, and what `readexactly` does at the end."""
        path = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        headers = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        size = int.from_bytes(await reader.readexactly(4), "big")
        if not 24 <= size <= _LONGEST:
            raise ValueError(f"a payload of {size} bytes")
        payload = await reader.readexactly(size)
        control, body, checksum = struct.unpack(">QQQ", payload[:24])
        if control + body + 24 != size:
            raise ValueError(f"parts of {control} and {body} bytes in a payload of {size}")
        return cls(path, headers, payload[24 : 24 + control], checksum, payload[24 + control :])

    def encoded(self) -> bytes:
        """The message's bytes."""
        payload = struct.pack(">QQQ", len(self.control), len(self.body), self.checksum) + self.control + self.body
        return b"".join(
            part
            for size, text in ((2, self.path), (2, self.headers), (4, payload))
            for part in (len(text).to_bytes(size, "big"), text)
        )


class Relay:
    """Ports in front of the workers of this process.

    Args:
        scripts: their answers.
        discovery: Dynamo's folder (`DYN_FILE_KV`) in which workers are found.
    """

    def __init__(self, scripts: Scripts, discovery: Path) -> None:
        self._scripts = scripts
        self._instances = discovery / "v1" / "instances"
        self._ports: dict[int, int] = {}
        self._said: set[str] = set()

    def start(self) -> None:
        """Begin, in a thread that ends with the process."""
        threading.Thread(target=lambda: asyncio.run(self._run()), name="relay", daemon=True).start()

    async def _run(self) -> None:
        while True:
            for file in [*self._instances.glob("*")]:
                try:
                    await self._look_at(file)
                except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    if not isinstance(error, FileNotFoundError):  # the worker has left
                        self._say_once(f"{file.name}: {error!r}")
            await asyncio.sleep(_POLL_S)

    async def _look_at(self, file: Path) -> None:
        """Put our port into the file of a worker of this process."""
        entry = _read(file)
        found = re.fullmatch(r"127\.0\.0\.1:(\d+)(/.*)", str(entry.get("transport", {}).get("tcp")))
        if entry.get("endpoint") != "generate" or found is None or int(found[1]) in self._ports.values():
            return
        port = int(found[1])
        if port not in self._ports:
            if port not in set(own_ports()):
                return
            server = await asyncio.start_server(lambda r, w: self._serve(r, w, port), "127.0.0.1", 0)
            self._ports[port] = server.sockets[0].getsockname()[1]
        entry["transport"]["tcp"] = f"127.0.0.1:{self._ports[port]}{found[2]}"
        # Beside Dynamo's folder, so that nobody takes it for a worker before it is in its place.
        _replace(file, self._instances.parent.parent.parent / f".{os.getpid()}-{time.monotonic_ns()}", entry)

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            print(f"relay: {what}", file=sys.stderr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            answers, worker = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        back = asyncio.ensure_future(_copy(answers, writer))
        try:
            while True:
                frame = await Frame.read(reader)
                # A checksum would not be right any more; Dynamo 1.6.0 sends none.
                if not frame.checksum:
                    frame = frame._replace(body=going_on(frame.body, self._scripts))
                worker.write(frame.encoded())
                await worker.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        except ValueError as error:
            self._say_once(f"not a message of Dynamo 1.6.0: {error}")
        finally:
            worker.close()
            back.cancel()
            writer.close()


def _read(file: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(file.read_bytes())
    return entry


def _replace(file: Path, made: Path, entry: dict[str, Any]) -> None:
    made.write_text(json.dumps(entry))
    made.replace(file)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def own_ports() -> Iterator[int]:
    """The TCP ports on which this process listens."""
    mine = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            mine.add(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and f"socket:[{fields[9]}]" in mine:
            yield int(fields[1].rpartition(":")[2], 16)
