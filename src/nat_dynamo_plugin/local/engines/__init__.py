"""What can stand behind the embedded frontend, an engine a file."""

from __future__ import annotations

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.local.engines.engine import Engine
from nat_dynamo_plugin.local.engines.mocker import Mocker
from nat_dynamo_plugin.local.engines.vllm import Vllm

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Mocker, Vllm)}
"""By the name that `local.engine` has."""


def engine_of(config: LocalDynamoConfig, model_name: str) -> Engine:
    """The engine that a config asks for, for one start."""
    return ENGINES[config.engine](config, model_name)
