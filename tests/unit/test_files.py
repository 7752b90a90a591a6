"""Files of runs are their owner's, new or old."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nat_dynamo_plugin.files import make_private, write_text


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
