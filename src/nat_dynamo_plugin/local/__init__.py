"""The embedded Dynamo: `LocalDynamo`, its config, and scripted answers.

Importing this package is cheap; what starts processes is imported when `LocalDynamo` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nat_dynamo_plugin.config.local import LocalDynamoConfig
    from nat_dynamo_plugin.local.answers import (
        ANNOTATION,
        ScriptedAnswer,
        ScriptedAnswerError,
        current_scripted_answer,
        scripted_answer,
        scripted_answers,
    )
    from nat_dynamo_plugin.local.server import LocalDynamo, LocalDynamoError

__all__ = [
    "ANNOTATION",
    "LocalDynamo",
    "LocalDynamoConfig",
    "LocalDynamoError",
    "ScriptedAnswer",
    "ScriptedAnswerError",
    "current_scripted_answer",
    "scripted_answer",
    "scripted_answers",
]

_LAZY = {
    "ANNOTATION": "answers",
    "LocalDynamo": "server",
    "LocalDynamoConfig": "nat_dynamo_plugin.config.local",
    "LocalDynamoError": "server",
    "ScriptedAnswer": "answers",
    "ScriptedAnswerError": "answers",
    "current_scripted_answer": "answers",
    "scripted_answer": "answers",
    "scripted_answers": "answers",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name] if "." in _LAZY[name] else f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
