"""Files of runs are their owner's, new or old."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.files import clean_run, make_private, write_text
from nat_dynamo_plugin.secrets import Secrets


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_file_and_an_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_text(file, "one\ntwo é")
    assert mode(file) == 0o600 and file.read_text("utf-8") == "one\ntwo é"
    file.chmod(0o644)
    write_text(file, "2")
    assert mode(file) == 0o600 and file.read_text() == "2"


def test_for_a_library_that_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "a"
    make_private(file)
    assert mode(file) == 0o600 and file.read_bytes() == b""
    file.write_text("kept")
    file.chmod(0o666)
    make_private(file)
    assert mode(file) == 0o600 and file.read_text() == "kept"


def test_what_nat_eval_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "known", Secrets())
    monkeypatch.setattr(secrets, "_made", {})
    monkeypatch.setenv("DYNAMO_API_KEY", "")
    secrets.remember("sk-canary-of-files")
    folder, own = tmp_path / "out", tmp_path / "mine.yml"
    folder.mkdir()
    own.write_text("api_key: sk-canary-of-files")
    (folder / "config_original.yml").write_text("# of me\napi_key: sk-canary-of-files # here\n")
    (folder / "workflow_output.json").write_text('{"error": "sk-canary-of-files", "é": 1}', "utf-8")
    (folder / "kv_output.json").write_bytes(b"no text \xff")
    (folder / "config_effective.yml").symlink_to(own)
    (folder / "notes.txt").write_text("sk-canary-of-files")
    (folder / "notes.txt").chmod(0o644)
    clean_run(folder)
    assert (folder / "config_original.yml").read_text() == "# of me\napi_key: ${DYNAMO_API_KEY} # here\n"
    assert (folder / "workflow_output.json").read_text("utf-8") == '{"error": "***", "é": 1}'
    assert (folder / "kv_output.json").read_bytes() == b"no text \xff"
    assert {mode(folder / name) for name in ("config_original.yml", "workflow_output.json", "kv_output.json")} == {
        0o600
    }
    # What is not of the run stays as it is.
    assert own.read_text() == "api_key: sk-canary-of-files" and mode(folder / "notes.txt") == 0o644
