"""Keys are stripped, a rotation is seen without a restart, and what is broken for a while leaves the last key."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_dynamo_plugin import secrets
from nat_dynamo_plugin.layers import key_sources
from nat_dynamo_plugin.layers.key_sources import LOOK_S, MAX_BYTES, FileKey, VariableKey, source_of
from nat_dynamo_plugin.secrets import MOST_PAST, Secrets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    made = Secrets()
    monkeypatch.setattr(secrets, "known", made)
    monkeypatch.setattr(key_sources, "known", made)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("text", ["sk-canary-1", "sk-canary-1\n", " sk-canary-1\r\n", "\ufeffsk-canary-1\n"])
def test_a_file_is_stripped(tmp_path: Path, text: str, known: Secrets) -> None:
    (tmp_path / "key").write_text(text, "utf-8")
    source = source_of(f"file:{tmp_path}/key")
    assert source.value() == source.reread() == "sk-canary-1" and known.redacted("sk-canary-1.") == "***."
    assert source.name == f"file:{tmp_path}/key"


def _in_place(file: Path, key: str) -> None:
    file.write_text(key)


def _replaced(file: Path, key: str) -> None:
    other = file.with_name("other")
    other.write_text(key)
    os.utime(other, ns=(7, 7))  # so that the time does not tell
    other.replace(file)


@pytest.mark.parametrize("rotate", [_in_place, _replaced])
def test_a_rotation_is_seen_at_the_next_look(
    tmp_path: Path, clock: Clock, rotate: Callable[[Path, str], None], known: Secrets
) -> None:
    file = tmp_path / "key"
    file.write_text("sk-canary-1")
    os.utime(file, ns=(7, 7))
    source = FileKey(str(file), clock)
    rotate(file, "sk-canary-2\n")
    assert source.value() == "sk-canary-1"
    clock.now += LOOK_S
    assert source.value() == "sk-canary-2"
    assert known.redacted("sk-canary-1 sk-canary-2 ") == "*** *** "


def test_a_mounted_secret_of_kubernetes(tmp_path: Path, clock: Clock) -> None:
    for name, key in (("..1", "sk-canary-1"), ("..2", "sk-canary-2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(key)
        os.utime(tmp_path / name / "key", ns=(7, 7))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    source = FileKey(str(tmp_path / "key"), clock)
    assert source.value() == "sk-canary-1"
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    clock.now += LOOK_S
    assert source.value() == "sk-canary-2"


def test_a_change_that_leaves_no_trace_is_seen_when_the_key_is_refused(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "key"
    file.write_text("sk-canary-1")
    os.utime(file, ns=(7, 7))
    source = FileKey(str(file), clock)
    file.write_text("sk-canary-2")
    os.utime(file, ns=(7, 7))
    clock.now += LOOK_S
    assert source.value() == "sk-canary-1" and source.reread() == "sk-canary-2" == source.value()


@pytest.mark.parametrize("content", [None, "", "\n", "two words", "k" * (MAX_BYTES + 1), "é"])
def test_a_file_that_is_broken_for_a_while(tmp_path: Path, clock: Clock, content: str | None) -> None:
    file = tmp_path / "key"
    file.write_text("sk-canary-1")
    source = FileKey(str(file), clock)
    file.unlink()
    if content is not None:
        file.write_text(content)
    clock.now += LOOK_S
    assert source.value() == source.reread() == "sk-canary-1"
    file.write_text("sk-canary-2-longer")
    clock.now += LOOK_S
    assert source.value() == "sk-canary-2-longer"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("kye", "sk-canary-1", r": there is no such file; did you mean file:.*/key\?"),
        ("no/key", "sk-canary-1", r": there is no such file, and no folder '.*/no' that can be read"),
        ("key", "", r": it is empty"),
        ("key", "sk canary 1", r": it holds no key that can travel in a header"),
        ("key", "k" * (MAX_BYTES + 1), r": it holds no key"),
        (".", "sk-canary-1", r": it (can not be read|is no regular file)"),
        ("pipe", "sk-canary-1", r": it is no regular file"),
    ],
)
def test_a_bad_file_is_named_and_not_quoted(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / "key").write_text(content)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=f"^file:{re.escape(str(tmp_path / name))}{message}") as caught:
        FileKey(str(tmp_path / name))
    assert not content or content not in str(caught.value)


def test_a_variable(monkeypatch: pytest.MonkeyPatch, known: Secrets) -> None:
    monkeypatch.setenv("A_KEY_OF_MINE", "sk-canary-1\n")
    source = source_of("env:A_KEY_OF_MINE")
    assert source.value() == "sk-canary-1" and source.name == "env:A_KEY_OF_MINE"
    monkeypatch.setenv("A_KEY_OF_MINE", "sk-canary-2")
    assert source.value() == "sk-canary-1"
    assert source.reread() == "sk-canary-2" == source.value()
    assert known.redacted("sk-canary-1 sk-canary-2.") == "*** ***."
    for bad in ("", "two words"):
        monkeypatch.setenv("A_KEY_OF_MINE", bad)
        assert source.reread() == "sk-canary-2"
    monkeypatch.delenv("A_KEY_OF_MINE")
    assert source.reread() == "sk-canary-2"


@pytest.mark.parametrize("place", ["env:A_KEY_OF_MINE", "file:{}/key"])
def test_keys_that_were_replaced_long_ago_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: Secrets, place: str
) -> None:
    def rotate(key: str) -> None:
        monkeypatch.setenv("A_KEY_OF_MINE", key)
        (tmp_path / "key").write_text(key)

    rotate("sk-canary-first")
    source = source_of(place.format(tmp_path))
    for k in range(MOST_PAST + 1):
        rotate(f"sk-canary-{k:03}-x")
        source.reread()
    assert known.redacted("sk-canary-first sk-canary-000-x.") == "sk-canary-first ***."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("A_KEY_OF_MIEN", "sk-canary-1", "is not set; did you mean A_KEY_OF_MINE"),
        ("A_KEY_OF_MINE", " \n", "is empty"),
        ("A_KEY_OF_MINE", "sk canary", "holds no key"),
    ],
)
def test_a_bad_variable_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv("A_KEY_OF_MINE", value)
    with pytest.raises(ValueError, match=f"^env:{name}: the environment variable {message}") as caught:
        VariableKey(name)
    assert not value.strip() or value not in str(caught.value)


def test_a_key_in_clear(known: Secrets) -> None:
    source = source_of("sk-canary-1")
    assert source.value() == source.reread() == "sk-canary-1" and "canary" not in source.name
    assert known.redacted("sk-canary-1.") == "***."
