"""Check the arguments of a framework's client against the ones it really takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

from nat_dynamo_plugin.config.model import names
from nat_dynamo_plugin.nearest import did_you_mean, shown


def checked_arguments(arguments: Mapping[str, Any], known: Iterable[str], client: str) -> dict[str, Any]:
    """The arguments, if the framework's client takes all of them.

    Raises:
        ValueError: for one it does not take, naming the nearest that it or `_type: dynamo` does.
    """
    known = frozenset(known)
    for name, value in arguments.items():
        if name not in known:
            hint = did_you_mean(name, sorted(known | names().known - arguments.keys()))
            raise ValueError(
                f"{shown(name, value)}: {client}, which serves `_type: dynamo` here, does not take it{hint}"
            )
    return dict(arguments)


def named_parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the parameters that can be given by keyword."""
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return frozenset(name for name, p in signature(function).parameters.items() if p.kind in kinds) - {"self"}


def chat_parameters() -> frozenset[str]:
    """What a user may set of the OpenAI library's `chat.completions.create`; the framework sets the others itself."""
    from openai.resources.chat.completions import Completions

    framework = {"messages", "model", "stream", "stream_options", "tools", "functions", "function_call", "timeout"}
    return named_parameters(Completions.create) - framework
