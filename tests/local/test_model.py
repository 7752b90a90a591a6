"""The model folder: the tokenizer gives every text back, and its cache is safe."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nat_dynamo_plugin.local import model


@cache
def tokenizer() -> Tokenizer:
    return model.load_tokenizer(model.tokenizer_file())


PIECES = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\t", "<tool_call>", "</tool_call>", model.TURN_END, model.END_OF_TEXT, "é", "e\u0301",
     "🎉", "👩‍👩‍👧", "中文", "\u200b", "\0", '{"a": 1}', "def f(x):\n    return x", "don't", "12345678"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=20).map("".join)


@settings(max_examples=300)
@given(TEXTS)
def test_every_text_comes_back(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False).ids
    assert tokenizer().decode(ids, skip_special_tokens=True) == text


def test_no_text_contains_a_special_token() -> None:
    ids = tokenizer().encode(f"{model.TURN_START}user{model.TURN_END}{model.END_OF_TEXT}").ids
    assert not {0, 1, 2} & set(ids)
    assert tokenizer().token_to_id(model.TURN_END) == model.eos_token_id()


def test_tokens_are_about_as_long_as_real_ones() -> None:
    """3.5 to 5 characters a token, as common tokenizers have on the same kinds of text."""
    english = (
        "The embedded server is started before the agent runs and is stopped after it. Every question of the user "
        "has its own session, so that the router can send all calls of one conversation to the same worker, where "
        "the keys and values of the earlier turns are still in memory. If a worker dies, the request moves to another."
    )
    tool = json.dumps(
        {
            "type": "function",
            "function": {
                "name": "get_stock_info",
                "description": "Get the details of a stock.",
                "parameters": {
                    "type": "object",
                    "properties": {"symbol": {"type": "string", "description": "Symbol that uniquely identifies it."}},
                    "required": ["symbol"],
                },
            },
        }
    )
    code = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text()
    for text in (english, tool, code):
        assert 3.3 < len(text) / len(tokenizer().encode(text).ids) < 5.5, text[:40]


def test_the_folder_has_what_dynamo_reads(tmp_path: Path) -> None:
    model.write_model_folder(tmp_path / "m", model.tokenizer_file(), 4321)
    files = {file.name: file.read_text() for file in (tmp_path / "m").iterdir()}
    assert files.keys() == {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert json.loads(files["config.json"])["max_position_embeddings"] == 4321
    assert json.loads(files["config.json"])["eos_token_id"] == model.eos_token_id()
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == model.CHAT_TEMPLATE


SMALL = (
    "import sys; from nat_dynamo_plugin.local import model;"
    "model._corpus = lambda: iter(['some small text to train on ' * 50]);"
    "print(model.tokenizer_file())"
)


def make(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SMALL], stdout=subprocess.PIPE, text=True, env=environment)


def test_several_can_make_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    import os

    children = [make(dict(os.environ)) for _ in range(3)]
    files = {child.communicate()[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    (file,) = files
    assert [entry.name for entry in (tmp_path / "nat-dynamo-plugin").iterdir()] == [Path(file).name]
    Tokenizer.from_file(file)


@pytest.mark.parametrize("has_home", [True, False])
def test_it_goes_elsewhere_if_the_cache_cannot_be_written(
    has_home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    (tmp_path / "t").mkdir()
    if has_home:
        monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    else:

        def unknown() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(model.Path, "home", unknown)
    monkeypatch.setattr(model.tempfile, "tempdir", str(tmp_path / "t"))
    monkeypatch.setattr(model, "_corpus", lambda: iter(["some small text to train on " * 50]))
    file = model.tokenizer_file()
    assert tmp_path / "t" in file.parents
    written = file.stat().st_mtime_ns
    assert model.tokenizer_file() == file
    assert file.stat().st_mtime_ns == written
