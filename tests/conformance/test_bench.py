"""`nat dynamo bench` before a real Dynamo and before what is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from .plain_server import serving


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "OPENAI_API_KEY": "of-another-server"}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=180)

    yield command
    command("down")


class Plain(BaseHTTPRequestHandler):
    """A strict OpenAI-compatible server that streams, and knows nothing but what OpenAI documents."""

    protocol_version = "HTTP/1.1"
    asked: list[dict[str, Any]]
    keys: set[str | None]
    knows_usage = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.keys.add(self.headers["authorization"])
        if self.path == "/v1/models":
            self._say(200, json.dumps({"object": "list", "data": [{"id": "plain", "object": "model"}]}).encode())
        else:
            self._say(404, b'{"error": {"message": "no such page"}}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.keys.add(self.headers["authorization"])
        known = {"model", "messages", "max_tokens", "stream"} | ({"stream_options"} if self.knows_usage else set())
        if unknown := set(body) - known:
            self._say(400, json.dumps({"error": {"message": f"unknown: {sorted(unknown)}"}}).encode())
            return
        self.asked.append(body)
        head = {"id": "x", "created": 1, "model": "plain", "object": "chat.completion.chunk"}
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        if self.knows_usage:
            chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}})
        lines = "".join(f"data: {json.dumps(head | chunk)}\n\n" for chunk in chunks)
        self._say(200, f"{lines}data: [DONE]\n\n".encode(), "text/event-stream")


def test_up_doctor_bench_and_down(run: Any) -> None:
    where = json.loads(run("up", "--detach", "--json").stdout)["base_url"]
    assert run("doctor", where).returncode in (0, 1)
    got = run("bench", where, "--concurrency", "1,4", "--rounds", "3", "--per-slot", "1", "--pause", "0", "--json")
    assert got.returncode == 0, got.stdout + got.stderr
    found = json.loads(got.stdout)
    assert found["server"]["is_dynamo"] and found["server"]["workers"] == 2 and found["server"]["says_cached"]
    assert [level["concurrency"] for level in found["levels"]] == [1, 4]
    for level in found["levels"]:
        assert level["failed"] == {"plain": 0, "plugin": 0} and level["why_not"] is None and level["rounds"] == 3
        assert set(level["figures"]) == {"question", "question p95", "TTFT", "TTFT p95", "reuse"}
        for side in ("plain", "plugin"):
            # Within a turn the questions share the agent's instructions, and calls the question's: no cache is cold.
            assert 0.2 < level["figures"]["reuse"][side] < 1
            assert 0 < level["figures"]["TTFT"][side] < 1000 * level["figures"]["question"][side]
    assert found["machine"]["openai"] and found["machine"]["cores"] and not found["verdict"].startswith("No verdict")
    assert run("down").stdout == f"{where} is down\n"


def test_a_trace_is_load_and_a_file_that_is_none_is_named(run: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 10 * k, "input_length": 600 + 400 * (k // 3), "output_length": 4, "hash_ids": [k % 3, 10 + k]}
        for k in range(9)
    ]
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = json.loads(run("up", "--detach", "--json", "--speedup", "10").stdout)["base_url"]
    got = run("bench", where, "--trace", str(trace), "--concurrency", "2", "--rounds", "3", "--json")
    found = json.loads(got.stdout)
    assert "trace.jsonl without content" in found["load"] and "3.0 calls a question" in found["load"]
    assert found["levels"][0]["failed"] == {"plain": 0, "plugin": 0}
    assert found["levels"][0]["figures"]["reuse"]["plain"] > 0.3

    wrong = run("bench", where, "--recording", str(trace))
    assert wrong.returncode == 2 and "--recording" in wrong.stderr and "is no recording" in wrong.stderr
    trace.write_text("{}\n")
    wrong = run("bench", where, "--trace", str(trace))
    assert wrong.returncode == 2 and "is no trace" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("knows_usage", [True, False])
def test_what_is_no_dynamo_is_named_and_measured(run: Any, knows_usage: bool) -> None:
    asked: list[dict[str, Any]] = []
    keys: set[str | None] = set()
    handler = type("Here", (Plain,), {"asked": asked, "keys": keys, "knows_usage": knows_usage})
    with serving(handler) as url:
        got = run("bench", url, "--concurrency", "2", "--rounds", "3", "--per-slot", "1", "--pause", "0")
        missing = run("bench", url, "--model", "other", "--api-key", "sk-secret")
    assert got.returncode == 0, got.stdout + got.stderr
    assert "not Dynamo" in got.stdout and "Hints and sessions do not act there" in got.stdout
    assert "It does not say how many tokens were cached" in got.stdout and "reuse |" not in got.stdout
    [warned] = got.stderr.splitlines()
    assert "refuses what we put into bodies (unknown: ['nvext'])" in warned
    assert "of-another-server" not in str(keys) and asked[0]["model"] == "plain"
    assert missing.returncode == 2 and "env:NAME or file:PATH" in missing.stderr and "sk-secret" not in missing.stderr


def test_what_can_not_be_measured_is_named(run: Any) -> None:
    got = run("bench", "http://127.0.0.1:70000/v1")
    assert got.returncode == 2 and "a port from 1 to 65535" in got.stderr and "Traceback" not in got.stderr
    got = run("bench", "http://127.0.0.1:9/v1")
    assert got.returncode == 2 and "nothing listens on 127.0.0.1:9" in got.stderr and "Traceback" not in got.stderr
    where = json.loads(run("up", "--detach", "--json", "--workers", "1").stdout)["base_url"]
    got = run("bench", where, "--model", "no-such")
    assert got.returncode == 2 and "no-such" in got.stderr and "it serves nat-dynamo-local" in got.stderr
    got = run("bench", where, "--concurrency", "4,none")
    assert got.returncode == 2 and "as in 1,4,16" in got.stderr
