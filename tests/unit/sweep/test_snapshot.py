"""What a sweep measures is read once; its name follows what is measured; what is written is what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.optimizer import OptimizerRunConfig
from nat.runtime.loader import load_config
from nat.utils.io.yaml_tools import yaml_load

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.sweep.snapshot import Snapshot

Write = Callable[..., Path]
OSL, TOTAL = "llms.dynamo.prefix_osl", "llms.dynamo.prefix_total_requests"


def snapshot(file: Path, **options: Any) -> Snapshot:
    config = load_config(file)
    secrets.remember_config(config)
    return Snapshot(config, OptimizerRunConfig(config_file=file, **{"dataset": None, **options}))


def name(file: Path, **options: Any) -> str:
    return snapshot(file, **options).fingerprint({})


def test_an_edit_changes_no_candidate_and_not_what_is_written(write: Write, tmp_path: Path) -> None:
    file = write()
    taken = snapshot(file)
    measured = taken.candidate({OSL: "LOW"})
    assert taken.candidate({TOTAL: 4}).llms["dynamo"].prefix_osl == "MEDIUM"  # one candidate is nothing to the next
    fingerprint = taken.fingerprint({})
    write(('model_name: "m"', 'model_name: "other"'), ("prefix_total_requests: 10", "prefix_total_requests: 4"))
    assert taken.candidate({OSL: "LOW"}) == measured
    assert taken.fingerprint({}) == fingerprint
    taken.write({OSL: "LOW"}, tmp_path / "tuned.yml")
    assert load_config(tmp_path / "tuned.yml") == measured
    assert "# calls of a question" in (tmp_path / "tuned.yml").read_text()


def test_an_edit_of_the_base_is_not_written(write: Write, tmp_path: Path) -> None:
    base = write(name="common.yml")
    child = tmp_path / "child.yml"
    child.write_text("base: common.yml\nllms:\n  dynamo:\n    model_name: n\n")
    taken = snapshot(child)
    measured = taken.candidate({OSL: "LOW"})
    base.write_text(base.read_text().replace("prefix_total_requests: 10", "prefix_total_requests: 4"))
    taken.write({OSL: "LOW"}, tmp_path / "tuned.yml")
    assert load_config(tmp_path / "tuned.yml") == measured
    text = (tmp_path / "tuned.yml").read_text()
    assert "${SWEEP_TEST_KEY}" in text and "sk-not-for-any-file" not in text


def test_what_is_yaml_only_with_its_variables_replaced_is_written_out(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    llm = "{_type: dynamo, model_name: m, base_url: 'http://a/v1', api_key: ${SWEEP_TEST_KEY}, prefix_osl: HIGH}"
    file.write_text(f"llms:\n  dynamo: {llm}\n")
    taken = snapshot(file)
    taken.write({OSL: "LOW"}, tmp_path / "tuned.yml")
    assert load_config(tmp_path / "tuned.yml") == taken.candidate({OSL: "LOW"})
    assert "sk-not-for-any-file" not in (tmp_path / "tuned.yml").read_text()


ANCHORS = """\
llms:
  dynamo: &d  # shared
    _type: dynamo
    base_url: http://localhost:1/v1
    model_name: m
    admission: &a {max_active_prefixes: 8}
    optimizable_params: [prefix_total_requests]
  judge: *d
  third:
    <<: *d
    model_name: n
    admission: *a
"""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"llms.{llm}.{field}", value)
        for llm in ("dynamo", "judge", "third")
        for field, value in (("prefix_osl", "LOW"), ("admission.max_active_prefixes", 4))
    ],
)
def test_what_is_under_an_anchor_changes_in_one_place_only(tmp_path: Path, path: str, value: Any) -> None:
    file = tmp_path / "config.yml"
    file.write_text(ANCHORS)
    taken = snapshot(file)
    taken.write({path: value}, tmp_path / "tuned.yml")
    assert load_config(tmp_path / "tuned.yml") == taken.candidate({path: value})
    assert "# shared" in (tmp_path / "tuned.yml").read_text()  # the user's text, not one written anew


def test_a_value_under_an_anchor_is_not_its_aliases(write: Write, tmp_path: Path) -> None:
    file = write(("prefix_osl: MEDIUM", "prefix_osl: &level HIGH\n    prefix_iat: *level"))
    taken = snapshot(file)
    taken.write({OSL: "LOW"}, tmp_path / "tuned.yml")
    llm = load_config(tmp_path / "tuned.yml").llms["dynamo"]
    assert (llm.prefix_osl, llm.prefix_iat) == ("LOW", "HIGH")


def test_ends_of_lines_stay(write: Write, tmp_path: Path) -> None:
    file = write()
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    snapshot(file).write({OSL: "LOW"}, tmp_path / "tuned.yml")
    written = (tmp_path / "tuned.yml").read_bytes()
    assert written == file.read_bytes().replace(b"prefix_osl: MEDIUM", b"prefix_osl: LOW")


def test_what_would_read_as_another_config_is_not_written(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = snapshot(write())
    read = yaml_load(tmp_path / "config.yml")
    monkeypatch.setattr("nat_dynamo_plugin.sweep.snapshot.yaml_load", lambda file: read)  # the value is not in it
    with pytest.raises(RuntimeError, match=r"tuned\.yml is not written.*prefix_osl=LOW"):
        taken.write({OSL: "LOW"}, tmp_path / "tuned.yml")
    assert not (tmp_path / "tuned.yml").exists()


ASIDE = (
    ("n_trials: 8", "n_trials: 9"),
    ("final_rounds: 3", "final_rounds: 4"),
    ("seed: 7", "seed: 7\n    parallel: 2"),
    ("seed: 7", "seed: 7\n    time_budget_s: 9"),
    ("/out", "/elsewhere"),
    ("  reps_per_param_set: 2", "  target: 0.1\n  reps_per_param_set: 2"),
    ("eval:\n", "eval:\n  general: {output: {dir: here}}\n"),
    ("    _type: dynamo_sweep", "    _type: dynamo_sweep  # a comment"),
)


def before_and_after(write: Write, folder: Path, change: tuple[str, str], *, in_base: bool) -> tuple[str, str]:
    """The names before and after a change of a config, or of the file that it is based on."""
    child = folder / "child.yml"
    child.write_text("base: config.yml\n")
    file = write()
    named = child if in_base else file
    before = name(named)
    write(change)
    return before, name(named)


@pytest.mark.parametrize("change", ASIDE)
@pytest.mark.parametrize("in_base", [False, True])
def test_what_does_not_change_what_is_measured_does_not_change_the_name(
    write: Write, tmp_path: Path, change: tuple[str, str], in_base: bool
) -> None:
    before, after = before_and_after(write, tmp_path, change, in_base=in_base)
    assert after == before


@pytest.mark.parametrize("in_base", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        ("prefix_osl: MEDIUM", "prefix_osl: LOW"),
        ("localhost:1", "localhost:2"),
        ("seed: 7", "seed: 8"),
        ("reps_per_param_set: 2", "reps_per_param_set: 1"),
    ],
)
def test_what_changes_what_is_measured_changes_the_name(
    write: Write, tmp_path: Path, change: tuple[str, str], in_base: bool
) -> None:
    before, after = before_and_after(write, tmp_path, change, in_base=in_base)
    assert after != before


def test_the_name_follows_variables_and_not_keys(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "\n    default_headers: {x-token: '${SWEEP_TEST_KEY}'}"
    file = write(("http://localhost:1/v1", "${SWEEP_TEST_URL}"), ("prefix_osl: MEDIUM", f"prefix_osl: MEDIUM{header}"))
    names = []
    for url, key in (("http://a/v1", "sk-one-one"), ("http://a/v1", "sk-two-two"), ("http://b/v1", "sk-two-two")):
        monkeypatch.setenv("SWEEP_TEST_URL", url)
        monkeypatch.setenv("SWEEP_TEST_KEY", key)
        names.append(name(file))
    assert names[0] == names[1] != names[2]


def test_the_name_follows_the_server_that_the_environment_names(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(("    base_url: http://localhost:1/v1\n", ""))
    names = set()
    for url in ("http://a/v1", "http://b/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        names.add(name(file))
    assert len(names) == 2


def test_the_name_follows_the_questions(write: Write, tmp_path: Path) -> None:
    asked = tmp_path / "questions.json"
    config = ("eval:\n", f"eval:\n  general:\n    dataset: {{_type: json, file_path: {asked}}}\n")
    names = []
    for question in ("one", "two", "one"):
        asked.write_text(json.dumps([{"id": 1, "question": question}]))
        names.append(name(write(config)))
    assert names[0] == names[2] != names[1]


def test_the_name_follows_the_options_of_the_command(write: Write, tmp_path: Path) -> None:
    file, asked = write(), tmp_path / "questions.json"
    asked.write_text("[]")
    names = [name(file), name(file, endpoint="http://a"), name(file, result_json_path="$.b"), name(file, dataset=asked)]
    asked.write_text("[1]")
    names.append(name(file, dataset=asked))
    assert len(set(names)) == len(names)


def test_a_config_that_is_no_file_has_a_name_of_its_own(write: Write) -> None:
    def of(file: Path) -> str:
        config = load_config(file)
        return Snapshot(config, OptimizerRunConfig(config_file=config, dataset=None)).fingerprint({})

    first, again = of(write()), of(write())
    assert first == again != of(write(("prefix_osl: MEDIUM", "prefix_osl: LOW")))
