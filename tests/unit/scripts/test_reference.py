"""docs/reference.md: what it is made from is all there, and it says what a field takes."""

from __future__ import annotations

import importlib.util
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import click
import pytest
from pydantic import BaseModel, Field

from nat_dynamo_plugin.cli.commands import dynamo
from nat_dynamo_plugin.config.model import DynamoModelConfig, names
from nat_dynamo_plugin.config.values import LevelOrNumber, Seconds, number

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load("reference")


@pytest.fixture(scope="module")
def page(reference: ModuleType) -> str:
    text: str = reference.page()
    return text


class Fruit(Enum):
    APPLE = "apple"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true, false"),
        (int | None, "whole number, null"),
        (Seconds, "number, above 0"),
        (Seconds | None, "number, above 0, null"),
        (Annotated[int | None, number(null=True, most=9)], "a whole number from 1 to 9, null"),
        (LevelOrNumber, "LOW, MEDIUM, HIGH, a whole number from 1 to 4294967295, auto"),
        (Literal["a", "b"], "`a`, `b`"),
        (Fruit, "`apple`"),
        (dict[str, list[int]], "mapping of text to list of whole number"),
    ],
)
def test_it_says_what_a_field_takes(reference: ModuleType, annotation: Any, words: str) -> None:
    assert reference.values_of(annotation) == words


def test_bounds_and_defaults_are_those_of_the_field(reference: ModuleType) -> None:
    class Model(BaseModel):
        a: float = Field(default=0.5, ge=0, lt=1, description="A share.")
        b: str = Field(min_length=1, description="A | name <b>, `c<d`.")
        c: list[str] = Field(default_factory=lambda: ["x"], validation_alias="sea", description="Water.")

    assert reference.fields(Model).splitlines()[2:] == [
        "| `a` | number, at least 0, below 1 | `0.5` | A share. |",
        "| `b` | text, 1 or more characters | required | A \\| name &lt;b>, `c<d`. |",
        '| `c` | list of text | `["x"]` | Water. Also: `sea`. |',
    ]


def test_every_field_has_a_row(page: str) -> None:
    llm = page.partition("\n## Hints")[0]
    own = llm.partition("\n### ")[0]
    for name, field in DynamoModelConfig.model_fields.items():
        assert (f"\n| `{name}` |" in own) == (not field.frozen and name != "type"), name
    for name, block in names().blocks.items():
        section = llm.partition(f"\n### `{name}:`\n")[2].partition("\n### ")[0]
        for field_name in block.model_fields:
            assert f"\n| `{field_name}` |" in section, (name, field_name)
    assert "Beside the block: `prefix_idle`" in llm and "Also: `nvext_prefix_osl`" in llm


def test_every_command_has_a_section(page: str) -> None:
    for name in dynamo.list_commands(click.Context(dynamo)):
        assert page.count(f"\n### `nat dynamo {name}`\n") == 1
    assert "| `--kv-blocks` | whole number, at least 16 |  | KV blocks of each. [default: 8192; vllm: 4096] |" in page


@pytest.mark.parametrize(
    "name", ["dynamo_kv_reuse", "dynamo_answered", "dynamo_prefix_scope", "dynamo_open_loop", "dynamo_sweep"]
)
def test_every_component_has_a_section(page: str, name: str) -> None:
    assert page.count(f"\n### `_type: {name}`\n") == 1


def test_the_page_in_the_docs_is_the_one_that_is_made(page: str) -> None:
    assert (ROOT / "docs" / "reference.md").read_text() == page, "run `make reference`"


def test_a_stale_page_is_told(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "PAGE", tmp_path / "reference.md")
    monkeypatch.setattr(reference, "page", lambda: "now\n")
    (tmp_path / "reference.md").write_text("then\n")
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    assert reference.main() == 1
    assert "-then\n+now\n" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["reference.py"])
    assert reference.main() == 0
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    assert reference.main() == 0


class TestEnvironment:
    @pytest.mark.parametrize(
        "reads", ["os.environ[NAME]", "os.environ.get(NAME)", 'os.getenv(NAME, "")', "os.environ.get(names.NAME)"]
    )
    def test_a_variable_is_found_by_its_constant(self, reference: ModuleType, tmp_path: Path, reads: str) -> None:
        (tmp_path / "names.py").write_text('NAME = "A_NAME"\n"""What it is."""\n')
        (tmp_path / "reads.py").write_text(f"x = {reads}\n")
        assert reference.variables(tmp_path) == [("A_NAME", "What it is.")]

    @pytest.mark.parametrize("reads", ['os.environ["A_NAME"]', "os.getenv(OTHER)"])
    def test_one_without_a_word_about_it_is_refused(self, reference: ModuleType, tmp_path: Path, reads: str) -> None:
        (tmp_path / "reads.py").write_text(f'OTHER = "OTHER"\nx = {reads}\n')
        with pytest.raises(ValueError, match=r"reads\.py.*without a constant with a docstring"):
            reference.variables(tmp_path)

    def test_names_of_the_users_are_no_variables_of_ours(self, reference: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "reads.py").write_text('x = os.environ.get(variable)\nos.environ["A"] = ""\n')
        assert reference.variables(tmp_path) == []


def test_gauges_without_a_list_of_them_are_refused(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric_families = sys.modules["metric_families"]
    text = "Gauge = print\n\n\ndef read():\n    yield Gauge('a', '', {}, 1.0)\n"
    (tmp_path / "a_module_with_gauges.py").write_text(text)
    monkeypatch.setattr(metric_families, "SOURCE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"a_module_with_gauges\.py has gauges and no described"):
        list(metric_families.gauges())
