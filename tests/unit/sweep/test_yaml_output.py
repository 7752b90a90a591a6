"""The tuned config as a text: what is written, and what must stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nat.runtime.loader import load_config

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.sweep.yaml_output import tuned_text

from .conftest import KEY

OSL = "llms.dynamo.prefix_osl"


def written(file: Path, values: dict[str, object], target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    text = tuned_text(file.read_text(), load_config(file), values, source=file.parent, target=target.parent)
    target.write_text(text)
    return text


def test_one_value_is_one_line(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write()
    text = written(file, {OSL: "LOW"}, tmp_path / "tuned.yml")
    changed = [
        pair for pair in zip(file.read_text().splitlines(), text.splitlines(), strict=True) if pair[0] != pair[1]
    ]
    assert changed == [("    prefix_osl: MEDIUM", "    prefix_osl: LOW")]
    assert KEY not in text


def test_a_default_gets_a_line_only_if_it_changes(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write()
    assert "prefix_iat:" not in written(file, {"llms.dynamo.prefix_iat": "MEDIUM"}, tmp_path / "a.yml")
    assert "prefix_iat: HIGH" in written(file, {"llms.dynamo.prefix_iat": "HIGH"}, tmp_path / "b.yml")


def test_a_field_keeps_the_name_that_the_user_gave_it(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(("prefix_osl: MEDIUM", "nvext_prefix_osl: 512"))
    text = written(file, {OSL: "LOW"}, tmp_path / "tuned.yml")
    assert "nvext_prefix_osl: LOW" in text
    assert load_config(tmp_path / "tuned.yml").llms["dynamo"].prefix_osl == "LOW"


def test_files_beside_the_config_are_found_from_elsewhere(write: Callable[..., Path], tmp_path: Path) -> None:
    write(name="common.yml")
    child = tmp_path / "child.yml"
    child.write_text("base: common.yml\nllms:\n  dynamo:\n    model_name: n  # ours\n")
    target = tmp_path / "somewhere" / "else" / "tuned.yml"
    text = written(child, {OSL: "LOW"}, target)
    assert "base: ../../common.yml" in text and "# ours" in text
    llm = load_config(target).llms["dynamo"]
    assert (llm.model_name, llm.prefix_osl, llm.prefix_total_requests) == ("n", "LOW", 10)


@pytest.mark.parametrize("indent", ["      - a\n      - b", "    - a\n    - b"])
def test_lists_keep_their_indentation(write: Callable[..., Path], tmp_path: Path, indent: str) -> None:
    file = write(("    prefix_osl: MEDIUM", f"    prefix_osl: MEDIUM\n    stop:\n{indent}"))
    assert indent in written(file, {OSL: "LOW"}, tmp_path / "tuned.yml")


@pytest.mark.parametrize(
    ("written_as", "path", "line"),
    [
        ("max_active_prefixes: 8", "admission.max_active_prefixes", "    max_active_prefixes: 4"),
        ("admission: {idle: 9, max_active_prefixes: 8}", "admission.max_active_prefixes", "max_active_prefixes: 4}"),
        ("connection: {read_timeout: 8}", "request_timeout", "    connection: {read_timeout: 4}"),
        ("request_timeout: 8", "connection.read_timeout", "    request_timeout: 4"),
        ("http2: false", "retry.max_retries", "      max_retries: 4"),
    ],
)
def test_a_field_of_a_block_keeps_the_place_that_the_user_gave_it(
    write: Callable[..., Path], tmp_path: Path, written_as: str, path: str, line: str
) -> None:
    file = write(("    prefix_osl: MEDIUM", f"    prefix_osl: MEDIUM\n    {written_as}"))
    text = written(file, {f"llms.dynamo.{path}": 4}, tmp_path / "tuned.yml")
    assert any(one.endswith(line) for one in text.splitlines())
    llm: Any = load_config(tmp_path / "tuned.yml").llms["dynamo"]
    for part in path.split("."):
        llm = getattr(llm, part)
    assert llm == 4


def test_a_key_in_clear_becomes_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "known", secrets.Secrets())
    monkeypatch.setattr(secrets, "_made", {})
    monkeypatch.setenv("DYNAMO_API_KEY", "")
    monkeypatch.setenv("MINE_TOKEN", "sk-canary-of-env")
    file = tmp_path / "config.yml"
    file.write_text(
        "llms:\n  d:\n    _type: dynamo\n    model_name: m  # not sk-canary-in-yaml\n    api_key: sk-canary-in-yaml\n"
        "  judge:\n    _type: openai\n    model_name: j\n    api_key: 'sk-canary-of-env'\n"
    )
    base = load_config(file)
    secrets.remember_config(base)
    values = {"llms.d.temperature": 0.5}
    text = tuned_text(file.read_text(), base, values, source=tmp_path, target=tmp_path)
    assert "canary" not in text and "api_key: ${DYNAMO_API_KEY}" in text and "'${MINE_TOKEN}'" in text
    (tmp_path / "out.yml").write_text(text)
    loaded = load_config(tmp_path / "out.yml")
    assert loaded.llms["judge"].api_key.get_secret_value() == "sk-canary-of-env"
    assert loaded.llms["d"] == base.llms["d"].model_copy(update={"temperature": 0.5})
