from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nat.cli.type_registry import GlobalTypeRegistry, TypeRegistry
from nat.data_models.config import Config
from nat.llm.dynamo_llm import DynamoModelConfig as BuiltinConfig
from nat.runtime.loader import PluginTypes, discover_and_register_plugins

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.nat import takeover

BOTH = {
    "llms": {
        "ours": {"_type": "dynamo", "model_name": "m"},
        "theirs": {"_type": "builtin_dynamo", "model_name": "m"},
    },
    "workflow": {"_type": "chat_completion", "llm_name": "ours"},
}


@pytest.fixture(autouse=True)
def _plugins() -> None:
    discover_and_register_plugins(PluginTypes.ALL)


def test_both_names_resolve() -> None:
    config = Config.model_validate(BOTH)
    assert type(config.llms["ours"]) is DynamoModelConfig
    assert type(config.llms["theirs"]) is BuiltinConfig


@pytest.mark.parametrize("mode", ["python", "json"])
def test_a_dumped_config_comes_back_to_the_same_classes(mode: str) -> None:
    dumped = Config.model_validate(BOTH).model_dump(mode=mode)
    config = Config.model_validate(dumped)
    assert type(config.llms["ours"]) is DynamoModelConfig
    assert type(config.llms["theirs"]) is BuiltinConfig


def test_the_second_time_nothing_happens() -> None:
    before = dict(GlobalTypeRegistry.get()._registered_llm_provider_infos)
    takeover.take_over_dynamo()
    assert GlobalTypeRegistry.get()._registered_llm_provider_infos == before


def test_a_registry_of_another_make_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    other = TypeRegistry()
    del other._registered_llm_provider_infos
    monkeypatch.setattr(GlobalTypeRegistry, "get", staticmethod(lambda: other))
    with pytest.raises(RuntimeError, match=r"nvidia-nat-core>=1\.9,<1\.10"):
        takeover.take_over_dynamo()


def test_the_entry_point_imports_no_framework_and_no_dynamo() -> None:
    code = (
        "import sys, nat_dynamo_plugin.register\n"
        "heavy = {'langchain_core', 'llama_index', 'openai', 'dynamo', 'zmq', 'optuna', 'pandas', 'transformers'}\n"
        "before = set(sys.argv[1].split(',')) \n"
        "print(sorted(heavy & set(sys.modules) - before))"
    )
    # What NAT itself imports for its registry is not ours to answer for.
    base = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "import sys, nat.llm.dynamo_llm, nat.cli.register_workflow\n"
            "import nat.middleware.register, nat.plugins.eval.register\n"
            "print(','.join(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code, base], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
