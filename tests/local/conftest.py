"""What the tests of the embedded Dynamo share: running instances, requests, and a look at the process table."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.local import LocalDynamo, LocalDynamoConfig

# Plain HTTP on loopback: loading certificates for each request would be most of the work.
CLIENT = httpx.Client(trust_env=False, verify=False, timeout=120)

MARKER = "NAT_DYNAMO_LOCAL_DIR"


@contextmanager
def running(config: LocalDynamoConfig) -> Iterator[LocalDynamo]:
    """A running instance for synchronous code; it does not depend on the event loop that started it."""
    dynamo = LocalDynamo(config)
    asyncio.run(dynamo.start())
    try:
        yield dynamo
    finally:
        asyncio.run(dynamo.stop())


def chat(dynamo: LocalDynamo, messages: list[dict[str, Any]], *, key: str | None = None, **body: Any) -> dict[str, Any]:
    """One unary chat completion; the decoded answer."""
    headers = body.pop("headers", {})
    response = CLIENT.post(
        f"{dynamo.base_url}/chat/completions",
        json=_body(dynamo, messages, key, body),
        headers=headers,
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def stream(dynamo: LocalDynamo, messages: list[dict[str, Any]], *, key: str | None = None, **body: Any) -> Any:
    """One streamed chat completion; (content, [(name, arguments)], finish reason)."""
    content, reason = "", None
    calls: dict[int, list[str]] = {}
    request = _body(dynamo, messages, key, body) | {"stream": True}
    response = CLIENT.post(f"{dynamo.base_url}/chat/completions", json=request)
    for line in response.content.split(b"\n"):  # not iter_lines, which also splits at U+2028 inside the JSON
        if not line.startswith(b"data: {"):
            continue
        for choice in json.loads(line.removeprefix(b"data: ")).get("choices", []):
            content += choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
            for call in choice["delta"].get("tool_calls") or []:
                known = calls.setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
    return content, [(name, json.loads(arguments)) for name, arguments in calls.values()], reason


def _body(dynamo: LocalDynamo, messages: list[dict[str, Any]], key: str | None, body: dict[str, Any]) -> dict[str, Any]:
    body = {"model": dynamo.model_name, "messages": messages, "max_tokens": 64} | body
    if key is not None:
        body["nvext"] = body.get("nvext", {}) | {"annotations": [f"output_replay_id:{key}"]}
    return body


def processes_of(work_dir: str | Path) -> list[int]:
    """Processes whose environment carries the instance's marker (zombies have none)."""
    mark = f"{MARKER}={work_dir}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must come about; the time it takes is nobody's concern, within reason."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def is_gone(work_dir: str | Path) -> bool:
    """Neither a process nor the directory is left."""
    return not processes_of(work_dir) and not Path(work_dir).exists()


def entries(folder: Path) -> list[Path]:
    """What a directory holds."""
    return list(folder.iterdir())


class Helpers:
    """The functions above, for tests (which cannot import this file)."""

    running = staticmethod(running)
    chat = staticmethod(chat)
    stream = staticmethod(stream)
    processes_of = staticmethod(processes_of)
    wait_until = staticmethod(wait_until)
    is_gone = staticmethod(is_gone)
    entries = staticmethod(entries)


@pytest.fixture(scope="session")
def helpers() -> type[Helpers]:
    return Helpers


@pytest.fixture(scope="session", autouse=True)
def _no_instance_left_behind() -> Iterator[None]:
    """Whatever these tests start carries a marker of this test run's own and must be gone at the end."""
    name = "NAT_DYNAMO_TEST_RUN"
    os.environ[name] = mark = f"{os.getpid()}-{time.time_ns()}"
    yield
    needle = f"{name}={mark}".encode()

    def left() -> list[int]:
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if needle in (entry / "environ").read_bytes().split(b"\0"):
                        pids.append(int(entry.name))
                except OSError:
                    continue
        return pids

    wait_until(lambda: not left(), f"all processes of this test run gone: {left()}")
    del os.environ[name]
