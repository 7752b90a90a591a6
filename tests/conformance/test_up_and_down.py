"""`nat dynamo up`, `status`, `logs`, `down`, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from nat_dynamo_plugin.processes import is_dead


def test_up_status_logs_and_down(run: Any) -> None:
    one = json.loads(run("up", "--detach", "--json", "--workers", "1").stdout)
    question = {"model": one["model"], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    request = Request(f"{one['base_url']}/chat/completions", json.dumps(question).encode())
    request.add_header("content-type", "application/json")
    with urlopen(request) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] == 4

    two = run("up", "--detach", "--workers", "1", "--queue").stdout
    assert "_type: dynamo" in two and "`nat dynamo down` ends it" in two and "curl http://127.0.0.1:" in two

    taken = run("up", "--detach", "--port", str(one["port"]))
    assert taken.returncode == 1 and f"port={one['port']} of 127.0.0.1 can not be had" in taken.stderr

    shown = run("status")
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) == 2 and one["base_url"] in shown.stdout
    assert "choose one by --port" in run("logs").stderr
    assert "frontend: " in run("logs", "--port", str(one["port"])).stdout
    wrong = run("down", "--port", "1")
    assert wrong.returncode == 2 and "no embedded Dynamo of ours is there" in wrong.stderr

    assert run("down", "--port", str(one["port"])).stdout == f"{one['base_url']} is down\n"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", one["port"])) != 0
    assert is_dead(one["owner"]) and not Path(one["work_dir"]).exists()
    assert len(run("down").stdout.splitlines()) == 1
    assert run("down").stdout == "None is running.\n"
    assert run("status").returncode == 1


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Any]:
    """Starts a command, and does not wait for its end."""
    environment, begun = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}, []

    def command(*arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", *arguments]
        process = subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        begun.append(process)
        return process

    yield command
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_down_ends_one_that_is_still_starting(run: Any, begin: Any, detach: tuple[str, ...], tmp_path: Path) -> None:
    # A process that is stopped as soon as it has begun does not get any further.
    process = begin("up", "--port", "45990", *detach)
    files = tmp_path / "nat-dynamo"
    while not (found := list(files.glob("starting-*.json"))):
        assert process.poll() is None
    one = json.loads(found[0].read_text())
    os.kill(one["pid"], signal.SIGSTOP)
    if list(files.glob("45990.json")):
        pytest.skip("it was quicker than we could stop it")
    assert one["starting"] and one["port"] == 45990
    shown = run("status")
    assert shown.returncode == 1 and "starting  nat-dynamo-local  2 workers" in shown.stdout
    assert "None is running" in run("logs").stderr
    os.kill(one["pid"], signal.SIGCONT)
    assert "(process" in run("down", "--port", "45990").stdout
    _, problems = process.communicate(timeout=60)
    assert is_dead(one["owner"]) and not list(files.glob("*.json"))
    assert run("status").stderr == "" and run("down").stdout == "None is running.\n"
    if detach:
        assert process.returncode == 1 and "asked to end while it started" in problems
    assert "Traceback" not in problems


def test_two_at_once(run: Any, begin: Any) -> None:
    both = [begin("up", "--detach", "--json", "--workers", "1") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    urls = {json.loads(out)["base_url"] for out, _ in said}
    assert len(urls) == 2, said
    assert {line.split()[0] for line in run("status").stdout.splitlines()} == urls
    assert set(run("down").stdout.splitlines()) == {f"{url} is down" for url in urls}


def test_two_at_once_on_one_port(run: Any, begin: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [begin("up", "--detach", "--json", "--workers", "1", "--port", port) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    [problem] = [errors for process, (_, errors) in zip(both, said, strict=True) if process.returncode]
    assert port in problem and "Traceback" not in problem
    assert run("down").stdout == f"http://127.0.0.1:{port}/v1 is down\n"


def test_one_that_was_killed_is_recognised(run: Any) -> None:
    one = json.loads(run("up", "--detach", "--json", "--workers", "1").stdout)
    os.kill(one["pid"], signal.SIGKILL)
    shown = run("status")
    assert shown.returncode == 1 and "None is running." in shown.stdout
    assert f"{one['base_url']} is gone: its process {one['pid']} was killed" in shown.stderr
    assert run("status").stderr == ""


def test_bad_settings_are_named(run: Any) -> None:
    got = run("up", "--detach", "--answers", "/no/such/file.jsonl")
    assert got.returncode == 1 and "/no/such/file.jsonl" in got.stderr and "Traceback" not in got.stderr
    got = run("up", "--speedup", "0")
    assert got.returncode == 1 and "speedup" in got.stderr and "Traceback" not in got.stderr


def test_the_commands_of_the_readme(run: Any) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    commands = [line.split()[2:] for line in readme.splitlines() if line.startswith("nat dynamo ")]
    assert [command[0] for command in commands] == ["up", "status", "down", "doctor"]
    where = json.loads(run(*commands[0], "--json").stdout)["base_url"]
    assert where in run(*commands[1]).stdout
    found = run(commands[3][0], where)
    assert found.returncode == 0 and "ok       hints: takes priority" in found.stdout, found.stdout + found.stderr
    assert run(*commands[2]).stdout == f"{where} is down\n"


def test_a_state_folder_that_can_not_be_written_is_named() -> None:
    argv = [sys.executable, "-m", "nat_dynamo_plugin.cli", "up", "--workers", "1"]
    environment = {**os.environ, "XDG_STATE_HOME": "/proc/none"}
    got = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)
    assert got.returncode == 1 and "Error: '/proc/none/nat-dynamo' can not be written" in got.stderr
    assert "Traceback" not in got.stderr
