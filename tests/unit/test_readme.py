"""The README is true: its YAML loads, its Python runs, its flags and targets exist."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins

from nat_dynamo_plugin.config.model import DynamoModelConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    discover_and_register_plugins(PluginTypes.ALL)


def test_there_is_something_to_check() -> None:
    assert len(blocks("yaml")) >= 3 and len(blocks("python")) >= 1


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_block_is_a_valid_config(text: str) -> None:
    given: dict[str, Any] = yaml.safe_load(text)
    llms = given.setdefault("llms", {"my_llm": {"_type": "openai", "model_name": "m"}})
    workflow = given.setdefault("workflow", {})
    # `my_workflow` stands for the reader's own.
    workflow |= {"_type": "chat_completion", "llm_name": next(iter(llms))}
    config = Config.model_validate(given)
    if "_type: dynamo\n" in text:
        assert isinstance(next(iter(config.llms.values())), DynamoModelConfig)
    assert config.workflow.middleware == workflow.get("middleware", [])


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_block_runs(text: str) -> None:
    from nat_dynamo_plugin import DynamoHints, DynamoPrefixContext

    seen = []

    class Agent:
        async def ainvoke(self, *_: object) -> None:
            seen.append((DynamoPrefixContext.get(), DynamoHints.current()))

    imports, _, rest = text.partition("\n\n")
    body = "\n".join("    " + line for line in rest.splitlines())
    names: dict[str, Any] = {"agent": Agent()}
    exec(f"{imports}\nasync def run():\n{body}\n", names)
    asyncio.run(names["run"]())
    assert seen and all(prefix and hints for prefix, hints in seen)


def test_the_frontend_takes_the_flags_it_names() -> None:
    command = next(b for b in blocks("sh") if "dynamo.frontend" in b)
    shown = subprocess.run(
        [sys.executable, "-m", "dynamo.frontend", "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = re.findall(r"--[a-z-]+", command)
    assert len(flags) >= 5
    for flag in flags:
        assert flag in shown


def test_make_has_the_targets_it_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_it_links_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
