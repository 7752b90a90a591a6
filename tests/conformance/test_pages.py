"""The commands, configs and code of README and docs/, as they stand there.

Every fenced command of every page has a place here: it is run, or what it names is held against what there is. One of a
kind that is not known fails, so that a new command gets its check.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from nat.data_models.optimizer import OptimizerConfig

from nat_dynamo_plugin.cli.commands import dynamo
from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.evaluators.answered import AnsweredConfig
from nat_dynamo_plugin.sweep.config import DynamoSweepConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "eval" / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(languages: str) -> list[Any]:
    """Fenced blocks of all pages, with the page's name."""
    pattern = re.compile(rf"^```(?:{languages})\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{index}")
        for page in PAGES
        for index, text in enumerate(pattern.findall(page.read_text()))
    ]


def commands(text: str) -> list[list[str]]:
    """Its commands, each as a list of words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_nat_dynamo(words: list[str]) -> None:
    """Parse it as click does; nothing is run."""
    command = dynamo.get_command(click.Context(dynamo), words[0])
    assert command is not None, words
    # A page's file need not be there.
    for param in command.params:
        if isinstance(param.type, click.Path):
            param.type.exists = False
    command.make_context(words[0], words[1:])


def check_kubectl(words: list[str]) -> None:
    assert words[0] in ("apply", "kustomize", "wait", "port-forward"), words
    for word in words[1:]:
        if "/" in word and word.startswith("deploy/"):
            assert (ROOT / word / "kustomization.yaml").exists(), word
        elif "/" in word:
            assert word in ("dynamographdeployment/dynamo", "service/dynamo-frontend"), word


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        assert "=" in word or re.search(rf"^{word}:", makefile, re.MULTILINE), word


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"  # which extras there are: tests/unit/test_readme.py


def check_python(words: list[str]) -> None:
    """Flags are in what `--help` shows."""
    shown = subprocess.run(
        [sys.executable, *words[:2], "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    for flag in (word for word in words[2:] if word.startswith("--")):
        assert flag.partition("=")[0] in shown, flag


CHECKS = {"kubectl": check_kubectl, "make": check_make, "pip": check_pip, "python": check_python}


@pytest.mark.parametrize("text", blocks("sh|bash|console|shell"))
def test_every_command_is_one_that_there_is(text: str) -> None:
    for words in commands(text):
        if words[:2] == ["nat", "dynamo"]:
            check_nat_dynamo(words[2:])
        else:
            CHECKS[words[0]](words[1:])


def test_a_command_that_there_is_not_fails() -> None:
    for text in ("nat dynamo gone", "nat dynamo up --gone 1", "make gone", "kubectl apply --kustomize deploy/gone"):
        with pytest.raises((AssertionError, click.UsageError)):
            test_every_command_is_one_that_there_is(text)
    with pytest.raises(KeyError):
        test_every_command_is_one_that_there_is("curl http://127.0.0.1")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_config_is_one(text: str) -> None:
    given = yaml.safe_load(text)
    read = 0
    llms = given.get("llms", {})
    if given.keys() & {"record", "local", "context"}:  # a part of an LLM
        where = {} if "local" in given else {"model_name": "m", "base_url": "http://d/v1"}
        llms = {"my_llm": {"_type": "dynamo", **where, **given}}
    for llm in llms.values():
        if llm.get("_type") == "dynamo":
            missing = {} if llm.keys() & {"base_url", "local"} else {"model_name": "m"}
            DynamoModelConfig.model_validate({**missing, **{k: v for k, v in llm.items() if k != "_type"}})
            read += 1
    for evaluator in given.get("eval", {}).get("evaluators", {}).values():
        if evaluator["_type"] == "dynamo_answered":
            AnsweredConfig.model_validate({k: v for k, v in evaluator.items() if k != "_type"})
            read += 1
    if "optimizer" in given:
        numeric = given["optimizer"].pop("numeric")
        DynamoSweepConfig.model_validate({k: v for k, v in numeric.items() if k != "_type"})
        OptimizerConfig.model_validate(given["optimizer"])
        read += 1
    assert read or given.keys() <= {"workflow", "middleware", "functions", "eval", "general"}, (
        "nothing of it is checked"
    )


def page(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Runs a block as a user does, in an empty folder, with `nat` and `python` on the path."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    nat = shutil.which("nat", path=str(Path(sys.executable).parent)) or shutil.which("nat")
    assert nat is not None
    (bin_folder / "nat").symlink_to(nat)
    (bin_folder / "python").symlink_to(sys.executable)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }

    def run(text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=empty, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    subprocess.run(["bash", "-c", "nat dynamo down"], cwd=empty, env=environment, capture_output=True)


def test_the_readmes_dynamo_goes_up_and_down(shell: Any) -> None:
    (text,) = [text for text in re.findall(r"```sh\n(.*?)```", page("README.md"), re.DOTALL) if "up --detach" in text]
    (doctor,) = re.findall(r"^nat dynamo doctor \S+$", page("README.md"), re.MULTILINE)
    up, status, down = text.splitlines()
    shown = shell(up)
    (url,) = set(re.findall(r"http://127\.0\.0\.1:\d+/v1", shown))
    assert url in shell(status)
    assert "Dynamo" in shell(f"{doctor.rpartition(' ')[0]} {url}")
    assert f"{url} is down\n" in shell(down)
