"""The group `nat dynamo`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from nat_dynamo_plugin.cli.commands import dynamo


def test_nat_finds_it() -> None:
    [entry] = entry_points(group="nat.cli", name="dynamo")
    assert entry.load() is dynamo


def test_it_imports_next_to_nothing() -> None:
    code = "import sys; import nat_dynamo_plugin.cli.commands; \
print([m for m in ('httpx', 'pydantic', 'nat', 'rich', 'aiohttp') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_names_the_commands() -> None:
    text = CliRunner().invoke(dynamo, ["--help"]).output
    assert all(name in text for name in ("up", "status", "logs", "down", "doctor"))
    assert CliRunner().invoke(dynamo, ["dokter"]).exit_code == 2


@pytest.mark.parametrize("arguments", [[], ["http://127.0.0.1:1/v1", "--config", __file__]])
def test_the_doctor_wants_one_of_url_and_config(arguments: list[str]) -> None:
    result = CliRunner().invoke(dynamo, ["doctor", *arguments])
    assert result.exit_code == 2 and "Give a BASE_URL or --config FILE" in result.output


def test_the_doctor_takes_no_key_on_the_command_line() -> None:
    result = CliRunner().invoke(dynamo, ["doctor", "http://127.0.0.1:1/v1", "--api-key", "sk-123456789"])
    assert result.exit_code == 2 and "env:NAME or file:PATH" in result.output and "sk-123456789" not in result.output


def test_findings_as_json() -> None:
    result = CliRunner().invoke(dynamo, ["doctor", "http://127.0.0.1:1/v1", "--json"])
    [finding] = json.loads(result.output)
    assert result.exit_code == 2 and finding["topic"] == "TCP" and finding["unreachable"] is True


def config(tmp_path: Path, llm: str) -> str:
    file = tmp_path / "config.yml"
    file.write_text(f"llms:\n  mine:\n    {llm}\nworkflow:\n  _type: chat_completion\n  llm_name: mine\n")
    return str(file)


@pytest.mark.parametrize(
    ("llm", "code", "says"),
    [
        ("{_type: openai, model_name: m}", 1, "no LLM of _type: dynamo"),
        ("{_type: dynamo, model_name: m, base_ulr: x}", 2, "base_url"),
        ("{_type: dynamo, model_name: m, local: {session_affinity_ttl_s: null}}", 1, "prefix ids do not act"),
        ("{_type: dynamo, model_name: m, local: {router_mode: random}}", 1, "router_mode is random"),
        ("{_type: dynamo, model_name: m, local: {session_affinity_mode: hard}}", 0, "session_affinity_mode is hard"),
        ("{_type: dynamo, model_name: m, local: {}, prefix_osl: 99}", 0, "osl does nothing"),
        ("{_type: dynamo, model_name: m, local: {}}", 0, "random tokens"),
        ("{_type: dynamo, model_name: m, local: {}, api_key: 0123456789abcdef}", 0, "stands in the file in clear"),
        ("{_type: dynamo, model_name: m, base_url: 'http://127.0.0.1:1/v1'}", 2, "mine: TCP: nothing listens"),
    ],
)
def test_the_doctor_looks_at_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llm: str, code: int, says: str
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    result = CliRunner().invoke(dynamo, ["doctor", "--config", config(tmp_path, llm)])
    assert result.exit_code == code, result.output
    assert says in result.output and "0123456789abcdef" not in result.output


def test_a_config_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    result = CliRunner().invoke(dynamo, ["doctor", "--config", config(tmp_path, "{_type: dynamo, model_name: m}")])
    assert result.exit_code == 2 and "base_url: which server?" in result.output


def test_recorded_answers_are_answers(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text("")
    llm = f"{{_type: dynamo, model_name: m, local: {{answers: {tmp_path}/calls.jsonl}}}}"
    result = CliRunner().invoke(dynamo, ["doctor", "--config", config(tmp_path, llm)])
    assert "random tokens" not in result.output and result.exit_code == 0, result.output


@pytest.mark.parametrize("text", ["a list\n", "llms:\n  - a\n", "- llms\n"])
def test_what_is_no_config_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    result = CliRunner().invoke(dynamo, ["doctor", "--config", str(file), "--json"])
    assert result.exit_code == 2 and "a NAT config has" in json.loads(result.stdout)[0]["seen"], result.output
