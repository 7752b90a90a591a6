"""The embedded Dynamo: `LocalDynamo`, its config, and scripted answers.

Importing this package is cheap; `LocalDynamo`, with what starts and asks processes, is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nat_dynamo_plugin.config.local import LocalDynamoConfig
from nat_dynamo_plugin.local.answers import (
    ScriptedAnswer,
    ScriptedAnswerError,
    current_scripted_answer,
    scripted_answer,
    scripted_answers,
)
from nat_dynamo_plugin.local.errors import LocalDynamoError

if TYPE_CHECKING:
    from nat_dynamo_plugin.local.server import LocalDynamo

__all__ = [
    "LocalDynamo",
    "LocalDynamoConfig",
    "LocalDynamoError",
    "ScriptedAnswer",
    "ScriptedAnswerError",
    "current_scripted_answer",
    "scripted_answer",
    "scripted_answers",
]


def __getattr__(name: str) -> Any:
    if name == "LocalDynamo":
        from nat_dynamo_plugin.local.server import LocalDynamo

        return LocalDynamo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
