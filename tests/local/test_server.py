"""LocalDynamo against the real frontend, router and simulated workers."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from nat_dynamo_plugin.local import (
    LocalDynamo,
    LocalDynamoConfig,
    LocalDynamoError,
    ScriptedAnswer,
    ScriptedAnswerError,
    server,
)
from nat_dynamo_plugin.local.answers import AnswerBook
from nat_dynamo_plugin.local.engines import engine
from nat_dynamo_plugin.local.model import tokenizer_file

USER = {"role": "user", "content": "hello"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Does f to x.",
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        },
    }
]


def composed_answers(count: int) -> list[ScriptedAnswer]:
    """Answers of every shape, the same each time, that the parser lets through."""
    chance = random.Random(7)
    pieces = [
        " ", "\n", "\r\n", "\t", "word", "Ünï", "🎉", "👩‍👩‍👧", "中文", "e\u0301", "\0",
        "\u2028", "<", ">", "<tool",
        "<|im_end|>", "<|endoftext|>", "<think>", "{", "}", "[", "]", '"', "\\", ",", ":", "1.50",
        '{"a": 1}', "```json\n", "don't", "[link](url)", "'name'", "call",
    ]  # fmt: skip

    def text() -> str:
        return "".join(chance.choices(pieces, k=chance.randrange(1, 15)))

    def value(depth: int = 0) -> Any:
        kinds: list[Any] = [
            None,
            True,
            chance.randrange(-(2**63), 2**64),
            chance.uniform(-1e9, 1e9),
            5e-324,
            text(),
            "",
        ]
        if depth < 2:
            kinds += [[value(depth + 1) for _ in range(2)], {text(): value(depth + 1)}]
        return chance.choice(kinds)

    answers: list[ScriptedAnswer] = []
    while len(answers) < count:
        calls = tuple(
            (chance.choice(["f", "ns.g-h_1"]), {text(): value() for _ in range(chance.randrange(3))})
            for _ in range(chance.choice([0, 0, 1, 1, 3]))
        )
        content = chance.choice([None, text(), text()]) if calls else text()
        answer = ScriptedAnswer(f"answer {len(answers)}: é, /", content, calls)
        try:
            AnswerBook([answer]).check_parser("hermes")
        except ScriptedAnswerError:
            continue
        answers.append(answer)
    return answers


ANSWERS = [
    ScriptedAnswer("plain", "A plain answer."),
    ScriptedAnswer("call", "Let me look.", (("f", {"x": 1}),)),
    *composed_answers(120),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def dynamo(helpers: Any, work: Path) -> Iterator[LocalDynamo]:
    file = work / "answers.jsonl"
    rows = [
        {
            "key": answer.key,
            "content": answer.content,
            "tool_calls": [{"name": name, "arguments": arguments} for name, arguments in answer.tool_calls],
        }
        for answer in ANSWERS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = LocalDynamoConfig(
        workers=4, speedup=100, scripted_answers=str(file), request_trace=work / "trace.jsonl", log_dir=work / "logs"
    )
    with helpers.running(config) as instance:
        yield instance


def test_it_serves_its_model(dynamo: LocalDynamo) -> None:
    models = httpx.get(f"{dynamo.base_url}/models", trust_env=False).json()["data"]
    assert [model["id"] for model in models] == [dynamo.model_name]
    assert dynamo.base_url == f"{dynamo.frontend_url}/v1"
    assert dynamo.pids.keys() == {"supervisor", "frontend", "mocker"}
    dynamo.check_alive()


async def test_metrics_are_prometheus_text(dynamo: LocalDynamo) -> None:
    assert "# TYPE dynamo_" in await dynamo.metrics()


def test_logs_are_there_and_readable(dynamo: LocalDynamo, work: Path) -> None:
    logs = dynamo.logs()
    assert logs["frontend"]
    assert "\x1b" not in logs["frontend"]
    assert (work / "logs" / dynamo.work_dir.name / "frontend.log").is_file()


def listening_addresses(pids: list[int]) -> list[str]:
    """Addresses of listening TCP sockets (IPv4 and IPv6) of some processes, as /proc writes them."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1])
    return found


def test_every_port_is_on_loopback(dynamo: LocalDynamo, helpers: Any) -> None:
    pids = helpers.processes_of(dynamo.work_dir)
    assert set(dynamo.pids.values()) <= set(pids)
    addresses = listening_addresses(pids)
    assert len(addresses) >= 4  # HTTP, the request plane, both sides of the broker
    assert {address.split(":")[0] for address in addresses} == {"0100007F"}, addresses


@pytest.mark.parametrize("with_tools", [False, True])
def test_prompts_hold_the_whole_conversation(dynamo: LocalDynamo, helpers: Any, with_tools: bool) -> None:
    system = {"role": "system", "content": "You are a helpful agent."}
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": f'{{"x": {n}234}}'}} for n in (1, 2)
    ]
    conversation: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": calls[:1]},
        {"role": "tool", "tool_call_id": "c1", "content": "What came out of the first call."},
        {"role": "assistant", "content": "Once more.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "What came out of the second call."},
        {"role": "tool", "tool_call_id": "c2", "content": "And of the third."},
        {"role": "assistant", "content": "That is it."},
        {"role": "user", "content": "Thanks."},
    ]
    extra = {"tools": TOOLS} if with_tools else {}

    def tokens(messages: list[dict[str, Any]]) -> int:
        count: int = helpers.chat(dynamo, messages, key="plain", **extra)["usage"]["prompt_tokens"]
        return count

    counts = [tokens(conversation[: end + 1]) for end in range(len(conversation))]
    assert all(later - earlier >= 5 for earlier, later in pairwise(counts)), counts
    assert tokens([system, *conversation]) > counts[-1]
    if with_tools:
        assert counts[0] - helpers.chat(dynamo, [USER], key="plain")["usage"]["prompt_tokens"] > 80


def test_a_longer_history_begins_with_the_shorter(dynamo: LocalDynamo, helpers: Any) -> None:
    """What a turn adds comes after what was there, so that the cache of earlier turns holds."""
    first = [{"role": "user", "content": "word " * 400}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    later = [
        *first,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "result"},
    ]
    headers = {"x-dynamo-session-id": "history"}
    before = helpers.chat(dynamo, first, key="call", tools=TOOLS, headers=headers)["usage"]
    after = helpers.chat(dynamo, later, key="plain", tools=TOOLS, headers=headers)["usage"]
    assert after["prompt_tokens_details"]["cached_tokens"] >= before["prompt_tokens"] // 16 * 16


def test_answers_come_back_exactly(dynamo: LocalDynamo, helpers: Any) -> None:
    def unary(answer: ScriptedAnswer) -> Any:
        choice = helpers.chat(dynamo, [USER], key=answer.key, tools=TOOLS)["choices"][0]
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls") or []]
        return (
            message["content"] or "",
            [(call["name"], json.loads(call["arguments"])) for call in calls],
            choice["finish_reason"],
        )

    def streamed(answer: ScriptedAnswer) -> Any:
        return helpers.stream(dynamo, [USER], key=answer.key, tools=TOOLS)

    with ThreadPoolExecutor(8) as pool:
        for ask in (unary, streamed):
            for answer, got in zip(ANSWERS, pool.map(ask, ANSWERS), strict=True):
                reason = "tool_calls" if answer.tool_calls else "stop"
                assert got == (answer.content or "", list(answer.tool_calls), reason), ask.__name__


def test_keys_are_known(dynamo: LocalDynamo) -> None:
    assert dynamo.answer_keys == {answer.key for answer in ANSWERS}
    dynamo.check_answer_key("call")
    with pytest.raises(ScriptedAnswerError, match="nearest key: 'call'"):
        dynamo.check_answer_key("cal")


async def test_sessions_stay_on_one_worker_and_are_in_the_trace(dynamo: LocalDynamo, work: Path, helpers: Any) -> None:
    workers: dict[str, Counter[int]] = defaultdict(Counter)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:

        async def session(name: str) -> None:
            for turn in range(6):
                response = await client.post(
                    f"{dynamo.base_url}/chat/completions",
                    headers={"x-dynamo-session-id": name},
                    json={
                        "model": dynamo.model_name,
                        "messages": [{"role": "user", "content": f"{name} {turn} " * 50}],
                        "max_tokens": 8,
                        "nvext": {"extra_fields": ["worker_id"]},
                    },
                )
                workers[name][response.json()["nvext"]["worker_id"]["decode_worker_id"]] += 1

        names = [f"session-{number}" for number in range(24)]
        await asyncio.gather(*map(session, names))
    assert {name: len(seen) for name, seen in workers.items()} == dict.fromkeys(names, 1)
    assert len({worker for seen in workers.values() for worker in seen}) == 4

    def traced() -> Counter[str]:
        lines = (work / "trace.jsonl").read_text().split("\n")[:-1]  # the last may not be whole yet
        events = [json.loads(line)["event"] for line in lines]
        return Counter(event.get("agent_context", {}).get("session_id") for event in events)

    helpers.wait_until(lambda: all(traced()[name] == 6 for name in names), "six records a session")


def test_the_context_length_is_the_configs(dynamo: LocalDynamo, helpers: Any) -> None:
    long = [{"role": "user", "content": "word " * 40_000}]
    assert helpers.chat(dynamo, long, max_tokens=1)["usage"]["prompt_tokens"] > 40_000


async def test_several_run_at_once_and_clean_up(helpers: Any) -> None:
    first, second, third = (LocalDynamo(LocalDynamoConfig(workers=1), model_name=f"model-{n}") for n in range(3))
    async with first, second:
        await third.start()
        places = [instance.work_dir for instance in (first, second, third)]
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                for instance in (first, second, third):
                    models = (await client.get(f"{instance.base_url}/models")).json()["data"]
                    assert [model["id"] for model in models] == [instance.model_name]
            with pytest.raises(LocalDynamoError, match="running already"):
                await third.start()
        finally:
            await third.stop()
        assert helpers.is_gone(places[2])
        first.check_alive()
    assert all(helpers.is_gone(place) for place in places)
    await third.stop()  # harmless
    with pytest.raises(LocalDynamoError, match="not running"):
        _ = third.base_url
    async with third:  # and it can be started again
        third.check_alive()


async def test_a_failed_start_quotes_the_log_and_keeps_it(
    helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LocalDynamoError) as caught:
        await LocalDynamo(LocalDynamoConfig(worker_args=["--no-such-flag"])).start()
    (kept,) = helpers.entries(tmp_path)
    message = str(caught.value)
    assert "the mocker ended with status 2" in message
    assert "unrecognized arguments: --no-such-flag" in message
    assert f"logs are kept in {kept / 'logs'}" in message
    assert "--no-such-flag" in (kept / "logs" / "mocker.log").read_text()
    assert not helpers.processes_of(kept)


async def test_a_start_that_takes_too_long_says_what_is_missing(
    helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deaf = [sys.executable, "-c", "import signal; signal.pause()"]
    monkeypatch.setattr("nat_dynamo_plugin.local.instance.frontend_command", lambda config, port: deaf)
    with pytest.raises(LocalDynamoError, match=r"not ready after startup_timeout_s = 0.001 s: the frontend does not"):
        await LocalDynamo(LocalDynamoConfig(startup_timeout_s=0.001)).start()
    (kept,) = helpers.entries(tmp_path)
    assert not helpers.processes_of(kept)


async def test_bad_answers_stop_the_start_before_anything_runs(
    helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ScriptedAnswerError, match="cannot be read"):
        await LocalDynamo(LocalDynamoConfig(scripted_answers="missing.jsonl")).start()
    assert helpers.entries(tmp_path) == []


def test_nothing_is_written_outside_the_work_directory(
    helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the home directory, which cannot be written here, nor among temporary files."""
    (tmp_path / "home").write_text("a file")
    (tmp_path / "tmp").mkdir()
    shutil.copytree(tokenizer_file().parent, tmp_path / "cache" / "nat-dynamo-plugin")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    with helpers.running(LocalDynamoConfig(workers=1)) as dynamo:
        assert helpers.entries(tmp_path / "tmp") == [dynamo.work_dir]
        assert {entry.name for entry in helpers.entries(dynamo.work_dir)} >= {"home", "tmp"}
        helpers.chat(dynamo, [USER])
    assert sorted(tmp_path.rglob("*")) == before


def test_no_process_knows_a_key(helpers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "CLIENT_SECRET"):
        monkeypatch.setenv(name, "sk-canary")
    with helpers.running(LocalDynamoConfig(workers=1)) as dynamo:
        pids = helpers.processes_of(dynamo.work_dir)
        assert len(pids) >= 3
        assert not any(b"sk-canary" in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)


@pytest.mark.parametrize(
    ("field", "place"), [("log_dir", "file"), ("request_trace", "file/trace"), ("request_trace", ".")]
)
async def test_a_place_that_cannot_be_written_is_named(
    field: str, place: str, helpers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    value = tmp_path / place
    with pytest.raises(LocalDynamoError) as caught:
        await LocalDynamo(LocalDynamoConfig.model_validate({field: value})).start()
    assert f"`local`: {field}={str(value)!r}: " in str(caught.value)
    assert "[Errno " in str(caught.value)
    assert helpers.entries(tmp_path / "tmp") == []


async def test_a_missing_temporary_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(LocalDynamoError, match=f"cannot be started: .*{tmp_path / 'missing'}"):
        await LocalDynamo(LocalDynamoConfig()).start()


async def test_a_tokenizer_that_can_be_kept_nowhere_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> Path:
        raise PermissionError("no folder of this user's own")

    monkeypatch.setattr(engine, "tokenizer_file", refused)
    with pytest.raises(LocalDynamoError, match="no folder of this user's own; let XDG_CACHE_HOME or TMPDIR name"):
        await LocalDynamo(LocalDynamoConfig()).start()


async def test_a_machine_without_a_free_port_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(socket.socket):
        def bind(self, address: Any) -> None:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr("nat_dynamo_plugin.local.instance.socket.socket", Full)
    with pytest.raises(LocalDynamoError, match=r"free TCP port on 127\.0\.0\.1, .* Address already in use; end what"):
        await LocalDynamo(LocalDynamoConfig()).start()


def test_a_tethered_command_does_not_outlive_a_parent_that_has_gone() -> None:
    file = Path(server.__file__).with_name("tethered.py")
    for parent, said in ((os.getpid(), "hello\n"), (1, "")):
        command = [sys.executable, "-I", "-S", str(file), str(parent), sys.executable, "-c", "print('hello')"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == said


@pytest.mark.parametrize("missing", ["dynamo", "tokenizers", "zmq"])
async def test_without_dynamo_the_error_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name == missing or name.startswith(f"{missing}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LocalDynamoError) as caught:
        await LocalDynamo(LocalDynamoConfig()).start()
    assert 'pip install "nat-dynamo-plugin[local]"' in str(caught.value)
    assert "pip install --no-deps ai-dynamo==1.6.0" in str(caught.value)


async def test_a_start_does_not_log_its_looks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="httpx")
    async with LocalDynamo(LocalDynamoConfig(workers=1)) as dynamo:
        assert not [record for record in caplog.records if record.name == "httpx"]
        await dynamo.metrics()
        assert [record.getMessage() for record in caplog.records if record.name == "httpx"] != []
