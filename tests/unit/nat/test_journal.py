"""The journal of an evaluation: whole lines, whatever ends the process or fills the disk."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_plugin.nat import journal as module
from nat_dynamo_plugin.nat.journal import Answered, Journal, JournalBusy, digest, read, set_aside, survives_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "journal.jsonl"


def written(path: Path, *questions: Answered, total: int = 4, finish: bool = False) -> None:
    journal = Journal(path)
    journal.begin("f", total, keep=True)
    for one in questions:
        journal.question(one)
    if finish:
        journal.finish()
    journal.close()


def test_what_was_written_is_read_back_and_the_last_word_counts(path: Path) -> None:
    first = Answered(id="a", asked="1", failure="503", error="down")
    again = Answered(id="a", asked="1", output={"text": "größer \u2028"}, trajectory=[{"payload": {"UUID": "x"}}])
    written(path, first, Answered(id="b", asked="2", failure="ConnectError"), again)
    entries = read(path)
    assert (entries.fingerprint, entries.total, entries.finished) == ("f", 4, False)
    assert entries.questions["a"] == again
    assert entries.failures == {"ConnectError": 1}
    assert set(entries.answered) == {"a"}
    assert entries.is_open


def test_only_the_owner_can_read_it_even_if_it_was_there_before(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o644)
    written(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("failed", "finished", "is_open"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_open_is_what_was_cut_or_has_failures(path: Path, failed: bool, finished: bool, is_open: bool) -> None:
    failures = [Answered(id="b", asked="2", failure="503")] if failed else []
    written(path, Answered(id="a", asked="1", output="x"), *failures, finish=finished)
    assert read(path).is_open is is_open


def test_a_run_that_goes_on_opens_a_finished_journal_again(path: Path) -> None:
    written(path, Answered(id="a", asked="1", output="x"), finish=True)
    written(path)
    assert not read(path).finished


def test_beginning_anew_forgets(path: Path) -> None:
    written(path, Answered(id="a", asked="1", output="x"))
    journal = Journal(path)
    journal.begin("g", 1, keep=False)
    journal.close()
    assert read(path).questions == {}
    assert read(path).fingerprint == "g"


@given(cut=st.integers(min_value=0), outputs=st.lists(JSON, min_size=1, max_size=4))
def test_a_torn_line_takes_nothing_else_with_it(
    tmp_path_factory: pytest.TempPathFactory, cut: int, outputs: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    written(path, *(Answered(id=str(n), asked="1", output=one) for n, one in enumerate(outputs)))
    whole = path.read_bytes()
    torn = whole[: cut % (len(whole) + 1)]
    path.write_bytes(torn)
    before = read(path)
    assert len(before.questions) in (torn.count(b"\n{"), torn.count(b"\n{") - 1, 0)
    written(path, Answered(id="later", asked="1", output="l"))
    after = read(path)
    assert after.questions == before.questions | {"later": Answered(id="later", asked="1", output="l")}
    for key, one in before.questions.items():
        assert one.output == outputs[int(key)]


@given(JSON)
def test_any_bytes_are_no_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("odd") / "journal.jsonl"
    path.write_bytes(json.dumps(value).encode() + b"\n\xff\x00{\n" + json.dumps({"question": value}).encode())
    read(path)


@given(JSON)
def test_equal_inputs_have_one_digest(value: Any) -> None:
    assert digest(value) == digest(json.loads(json.dumps(value)))


def test_a_full_disk_costs_a_warning_and_a_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(path)
    journal.begin("f", 3, keep=True)
    journal.question(Answered(id="a", asked="1", output="x"))
    real, half = os.write, [True]

    def full(file: int, data: bytes) -> int:
        if half:  # as the kernel does: what fits is written, then nothing is
            half.clear()
            return real(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "write", full)
    with caplog.at_level(logging.WARNING):
        journal.question(Answered(id="b", asked="2", output="y"))
        journal.question(Answered(id="c", asked="3", output="z"))
    monkeypatch.undo()
    assert [r.message for r in caplog.records if "No space left" in r.message] == [caplog.records[0].message]
    journal.question(Answered(id="d", asked="4", output="w"))
    journal.close()
    assert set(read(path).questions) == {"a", "d"}


def test_a_real_full_device(caplog: pytest.LogCaptureFixture, path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path.parent.mkdir()
    journal = Journal(path)
    os.close(journal._file)
    journal._file = os.open("/dev/full", os.O_WRONLY)
    with caplog.at_level(logging.WARNING):
        journal.question(Answered(id="a", asked="1"))
    assert "No space left" in caplog.text
    journal.close()


def test_two_evaluations_do_not_write_one_journal(path: Path) -> None:
    journal = Journal(path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom nat_dynamo_plugin.nat.journal import Journal, JournalBusy\n"
        "try:\n    Journal(Path(sys.argv[1]))\nexcept JournalBusy as error:\n    print(error)"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], capture_output=True, text=True)
    assert str(path) in ran.stdout
    with pytest.raises(JournalBusy):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_slim_keeps_what_happened_and_not_what_was_said(path: Path) -> None:
    journal = Journal(path)
    journal.begin("f", 1, keep=True)
    journal.call("1", {"status": 200})
    journal.question(Answered(id="a", asked="1", output="long", trajectory=[{"long": 1}]))
    journal.finish()
    journal.slim()
    journal.close()
    entries = read(path)
    assert "long" not in path.read_text()
    assert entries.calls == [{"status": 200}]
    assert (entries.questions["a"].failure, entries.finished, entries.answered) == (None, True, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_set_aside_takes_no_name_that_is_taken(path: Path) -> None:
    names = []
    for _ in range(2):
        written(path)
        names.append(set_aside(path).name)
    assert names == ["journal-1.jsonl", "journal-2.jsonl"]


@pytest.mark.parametrize(
    ("value", "survives"), [({"a": [1, None]}, True), ("x", True), ({1: 2}, False), ((1, 2), False), (object(), False)]
)
def test_what_survives_json(value: Any, survives: bool) -> None:
    assert survives_json(value) is survives


def test_what_json_has_not_is_written_all_the_same(path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    written(path, Answered(id="a", asked="1", output=object()), Answered(id="b", asked="2", output="\ud800"))
    journal = Journal(path)
    journal.call("1", {"circle": circle})
    journal.close()
    assert read(path).questions["b"].output == "\ud800"
    assert "object" in read(path).questions["a"].output
