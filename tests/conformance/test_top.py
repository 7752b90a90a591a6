"""`nat dynamo top` before a real Dynamo."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from .plain_server import serving


def ask(base_url: str, model: str, words: str) -> int:
    """Ask a call; how many prompt tokens it had."""
    body = {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 4}
    request = Request(f"{base_url}/chat/completions", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urlopen(request) as answer:
        return int(json.load(answer)["usage"]["prompt_tokens"])


def test_what_dynamo_did_is_shown(run: Any) -> None:
    assert "no embedded Dynamo of ours is running" in run("top", "--once").stderr
    one = json.loads(run("up", "--detach", "--json").stdout)
    tokens = [ask(one["base_url"], one["model"], "a question of some length, asked again and again, " * 20)] * 3
    for _ in tokens[1:]:
        ask(one["base_url"], one["model"], "a question of some length, asked again and again, " * 20)
    [seen] = json.loads(run("top", "--once", "--json").stdout)
    assert seen["source"] == f"http://127.0.0.1:{one['port']}/metrics"
    assert (seen["under_way"], seen["waiting"], seen["calls"], seen["failed"]) == (0, 0, 3, {})
    assert 0.3 < seen["reuse"] < 2 / 3 and 0 < seen["ttft_s"] < 60
    assert len(seen["workers"]) == 2 and any(worker["last_ttft_s"] for worker in seen["workers"].values())
    plain = run("top", "--once", one["base_url"]).stdout
    assert "calls 3, none failed" in plain and plain.count("\n  worker ") == 2


def test_it_goes_on_and_shows_what_came_between(run: Any, tmp_path: Path) -> None:
    one = json.loads(run("up", "--detach", "--json").stdout)
    ask(one["base_url"], one["model"], "hello")
    argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", "top", one["base_url"], "--json", "--interval", "0.1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())[0]["calls"] == 1
            ask(one["base_url"], one["model"], "hello")
            rates = []
            for line in process.stdout:
                [seen] = json.loads(line)
                rates.append(seen["calls_per_s"])
                if seen["calls"] == 2:
                    break
            assert rates[-1] > 0 and all(rate == 0 for rate in rates[:-1])
        finally:
            process.terminate()


class NoMetrics(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_error(404)


def test_a_server_without_metrics_is_named(run: Any) -> None:
    with serving(NoMetrics) as url:
        got = run("top", "--once", url)
    assert got.returncode == 1 and "/metrics: 404: no metrics are there" in got.stdout
    got = run("top", "--once", "/no/such")
    assert got.returncode == 2 and "neither a URL nor a folder of an evaluation" in got.stderr
