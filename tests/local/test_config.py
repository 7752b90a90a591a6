"""LocalDynamoConfig: what it refuses, and that each field becomes the flag it stands for."""

from __future__ import annotations

import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.local import LocalDynamoConfig
from nat_dynamo_plugin.local.commands import (
    environment,
    frontend_command,
    request_trace_environment,
)
from nat_dynamo_plugin.local.engines.mocker import worker_command


def flags_of(argv: list[str]) -> dict[str, str | None]:
    """Flags and their values on a command line."""
    flags: dict[str, str | None] = {}
    for here, after in zip(argv, [*argv[1:], ""], strict=True):
        if here.startswith("--"):
            flags[here] = None if after.startswith("--") or not after else after
    return flags


def both(**fields: Any) -> tuple[dict[str, str | None], dict[str, str | None]]:
    config = LocalDynamoConfig(**fields)
    return (
        flags_of(frontend_command(config, 4321)),
        flags_of(worker_command(config, Path("/m"), "name", Path("/t"))),
    )


@pytest.mark.parametrize(
    ("fields", "flag", "value"),
    [
        ({"workers": 7}, "--num-workers", "7"),
        ({"kv_blocks": 77}, "--num-gpu-blocks-override", "77"),
        ({"block_size": 32}, "--block-size", "32"),
        ({"speedup": 2.5}, "--speedup-ratio", "2.5"),
        ({"max_num_seqs": 5}, "--max-num-seqs", "5"),
        ({"max_num_batched_tokens": 55}, "--max-num-batched-tokens", "55"),
        ({"context_length": 555}, "--max-model-len", "555"),
        ({"tool_call_parser": "qwen3_coder"}, "--tool-call-parser", "qwen3_coder"),
        ({"worker_args": ["--preemption-mode", "fifo"]}, "--preemption-mode", "fifo"),
        ({}, "--model-path", "/m"),
        ({}, "--model-name", "name"),
        ({}, "--response-replay-trace-path", "/t"),
        ({}, "--resume-answers", "/t"),
    ],
)
def test_a_field_becomes_a_worker_flag(fields: dict[str, Any], flag: str, value: str) -> None:
    assert both(**fields)[1][flag] == value


@pytest.mark.parametrize(
    ("fields", "flag", "value"),
    [
        ({}, "--http-host", "127.0.0.1"),
        ({}, "--http-port", "4321"),
        ({"router_mode": "round-robin"}, "--router-mode", "round-robin"),
        ({"session_affinity_ttl_s": 9}, "--router-session-affinity-ttl-secs", "9"),
        ({"session_affinity_mode": "hard"}, "--router-session-affinity-mode", "hard"),
        ({"queue_threshold": 0}, "--router-queue-threshold", "0.0"),
        ({"track_output_blocks": True}, "--router-track-output-blocks", None),
        ({"migration_limit": 9}, "--migration-limit", "9"),
        ({"frontend_args": ["--router-temperature", "0.5"]}, "--router-temperature", "0.5"),
    ],
)
def test_a_field_becomes_a_frontend_flag(fields: dict[str, Any], flag: str, value: str | None) -> None:
    flags = both(**fields)[0]
    assert flag in flags
    assert flags[flag] == value


def test_what_is_off_is_not_passed() -> None:
    frontend, worker = both(session_affinity_ttl_s=None, tool_call_parser=None)
    assert not any("affinity" in flag or "queue" in flag or "output-blocks" in flag for flag in frontend)
    assert "--tool-call-parser" not in worker


def test_without_migration_no_answer_goes_on_elsewhere() -> None:
    assert "--resume-answers" not in both(migration_limit=0)[1]


def test_dynamo_knows_every_flag() -> None:
    frontend, worker = both(queue_threshold=0.5, track_output_blocks=True)
    for module, flags in (("dynamo.frontend", frontend), ("dynamo.mocker", worker)):
        text = subprocess.run(
            [sys.executable, "-P", "-m", module, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for flag in flags.keys() - {"--tool-call-parser", "--resume-answers"}:
            assert f"{flag} " in text or f"{flag}," in text or f"{flag}]" in text, (module, flag)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"worker": 2}, "worker=2: `local` has no such field; did you mean workers?"),
        ({"kv_block": 2}, "did you mean kv_blocks?"),
        ({"zzz": 2}, "known are workers, "),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"workers": 65}, "less than or equal to 64"),
        ({"speedup": 0}, "greater than 0"),
        ({"session_affinity_mode": "firm"}, "'soft' or 'hard'"),
        ({"queue_threshold": -1}, "greater than or equal to 0"),
        ({"frontend_args": ["--http-host=0.0.0.0"]}, "'--http-host=0.0.0.0' is set by the package"),
        ({"worker_args": ["--num-workers", "3"]}, "'--num-workers' is set by the package"),
        ({"env": {"DYN_TCP_RPC_HOST": "0.0.0.0"}}, "'DYN_TCP_RPC_HOST' is set by the package"),
        ({"scripted_answers": " "}, "empty; give a JSON lines file"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LocalDynamoConfig(**fields)
    assert complaint in str(caught.value)


def test_every_field_is_documented() -> None:
    for name, field in LocalDynamoConfig.model_fields.items():
        assert field.description, name


def test_the_environment_is_cut_off_from_other_deployments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DYN_ROUTER_TEMPERATURE", "9")
    monkeypatch.setenv("NATS_SERVER", "nats://elsewhere")
    monkeypatch.setenv("ETCD_ENDPOINTS", "http://elsewhere")
    monkeypatch.setenv("UNRELATED", "kept")
    values = environment(LocalDynamoConfig(env={"DYN_LOG": "debug"}), tmp_path)
    assert not {"DYN_ROUTER_TEMPERATURE", "NATS_SERVER", "ETCD_ENDPOINTS"} & values.keys()
    assert values["UNRELATED"] == "kept"
    assert values["DYN_LOG"] == "debug"
    assert {value for name, value in values.items() if name.startswith("DYN_") and name.endswith("_HOST")} == {
        "127.0.0.1"
    }


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("OPENAI_API_KEY", False),
        ("NVIDIA_API_KEYS", False),
        ("AZURE_OPENAI_KEY", False),
        ("aws_secret_access_key", False),
        ("AWS_SESSION_TOKEN", False),
        ("HF_TOKEN", False),
        ("TOKEN", False),
        ("CLIENT_SECRET", False),
        ("DB_PASSWORD", False),
        ("XDG_CACHE_HOME", False),
        ("HF_HOME", False),
        ("TOKENIZERS_PARALLELISM", True),
        ("KEYBOARD", True),
        ("MONKEY", True),
        ("PATH", True),
        ("LD_LIBRARY_PATH", True),
    ],
)
def test_keys_and_places_elsewhere_are_not_handed_down(
    name: str, kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "value")
    assert (environment(LocalDynamoConfig(), tmp_path).get(name) == "value") == kept
    # What is written in the config is wanted.
    assert environment(LocalDynamoConfig(env={name: "own"}), tmp_path)[name] == "own"


def test_a_secret_is_known_by_its_value_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets.remember("sk-canary-of-children")
    monkeypatch.setenv("AN_INNOCENT_NAME", "sk-canary-of-children\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://ann:of-ann@127.0.0.1/db")
    monkeypatch.setenv("PLAIN_URL", "postgresql://127.0.0.1/db")
    values = environment(LocalDynamoConfig(), tmp_path)
    assert not {"AN_INNOCENT_NAME", "DATABASE_URL"} & values.keys() and values["PLAIN_URL"]
    assert "PATH" in values


def test_home_and_temporary_files_are_the_instances_own(tmp_path: Path) -> None:
    values = environment(LocalDynamoConfig(), tmp_path)
    assert (values["HOME"], values["TMPDIR"]) == (str(tmp_path / "home"), str(tmp_path / "tmp"))
    # Packages of this user only are still found.
    assert values["PYTHONUSERBASE"] == site.getuserbase()


def test_request_trace_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert request_trace_environment(LocalDynamoConfig()) == {}
    values = request_trace_environment(LocalDynamoConfig(request_trace=tmp_path / "t.jsonl"))
    assert values["DYN_REQUEST_TRACE_FILE_PATH"] == str(tmp_path / "t.jsonl")


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys; import nat_dynamo_plugin.local; from nat_dynamo_plugin.local import LocalDynamoConfig;"
        "print(sorted({'zmq', 'transformers', 'tokenizers', 'dynamo', 'httpx'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
