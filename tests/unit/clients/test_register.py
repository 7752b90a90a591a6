"""The list of frameworks: complete, cheap to import, and clear about what is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import cast

import pytest
from nat.builder.builder import Builder
from nat.builder.framework_enum import LLMFrameworkEnum

from nat_dynamo_plugin.clients.arguments import checked_arguments
from nat_dynamo_plugin.clients.register import FRAMEWORKS, MissingFrameworkError, client_of
from nat_dynamo_plugin.config.model import DynamoModelConfig

PACKAGES = {
    LLMFrameworkEnum.LANGCHAIN: "langchain_openai",
    LLMFrameworkEnum.LLAMA_INDEX: "llama_index",
    LLMFrameworkEnum.ADK: "litellm",  # which ADK's client imports first
    LLMFrameworkEnum.CREWAI: "crewai",
    LLMFrameworkEnum.AGNO: "agno",
    LLMFrameworkEnum.AUTOGEN: "autogen_core",
    LLMFrameworkEnum.SEMANTIC_KERNEL: "semantic_kernel",
    LLMFrameworkEnum.STRANDS: "strands",
}


def test_every_framework_of_nat_is_there() -> None:
    assert set(FRAMEWORKS) == set(LLMFrameworkEnum) == set(PACKAGES)


def test_importing_the_plugin_imports_no_framework() -> None:
    frameworks = [*PACKAGES.values(), "google.adk", "openai", "dynamo"]
    # NAT's own start-up is not ours to judge, so what it imports is not counted.
    code = (
        "import sys, nat.cli.register_workflow, nat.llm.dynamo_llm\n"
        "before = set(sys.modules)\n"
        "import nat_dynamo_plugin.register\n"
        f"print(sorted(set({frameworks!r}) & (set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.value)
async def test_a_missing_framework_names_the_extra_to_install(
    framework: LLMFrameworkEnum, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, extra = FRAMEWORKS[framework]
    monkeypatch.delitem(sys.modules, f"nat_dynamo_plugin.clients.{module}", raising=False)
    package = PACKAGES[framework]
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    make = client_of(module, extra)
    with pytest.raises(MissingFrameworkError, match=rf"install nat-dynamo-plugin\[{extra}\]"):
        await anext(make(DynamoModelConfig(model_name="m"), cast(Builder, None)))


def test_an_argument_that_the_client_does_not_take_names_the_nearest() -> None:
    known = {"temperature", "seed"}
    assert checked_arguments({"seed": 1}, known, "Client") == {"seed": 1}
    with pytest.raises(ValueError, match=r"sed=1: Client, which serves .* did you mean seed\?"):
        checked_arguments({"sed": 1}, known, "Client")
    with pytest.raises(ValueError, match=r"did you mean max_connections\?"):
        checked_arguments({"max_conections": 1}, known, "Client")
    with pytest.raises(ValueError, match=r"zzz=1: .* does not take it$"):
        checked_arguments({"zzz": 1}, known, "Client")
