"""NAT's thinking prompt for Nemotron models, put into the calls of a framework's client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nat.llm.utils.thinking import BaseThinkingInjector, FunctionArgumentWrapper, patch_with_thinking

from nat_dynamo_plugin.config.model import DynamoModelConfig

T = TypeVar("T")
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Inject = Callable[[str, tuple[Any, ...], dict[str, Any]], Arguments]
"""Gives a call's arguments with a system prompt in them."""


def with_thinking(client: T, config: DynamoModelConfig, methods: list[str], inject: Inject) -> T:
    """The client, which from now on has the thinking prompt in each call of `methods`, if the config asks for it."""
    prompt = config.thinking_system_prompt
    if prompt is None:
        return client

    class Injector(BaseThinkingInjector):
        def inject(self, *args: Any, **kwargs: Any) -> FunctionArgumentWrapper:
            args, kwargs = inject(self.system_prompt, args, kwargs)
            return FunctionArgumentWrapper(*args, **kwargs)

    patched: T = patch_with_thinking(client, Injector(system_prompt=prompt, function_names=methods))
    return patched


def in_argument(name: str, change: Callable[[str, Any], Any]) -> Inject:
    """For methods that take the messages first or by `name`: `change(prompt, messages)` puts the prompt into them."""

    def inject(prompt: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if args:
            return (change(prompt, args[0]), *args[1:]), kwargs
        return (), {**kwargs, name: change(prompt, kwargs[name])}

    return inject


def in_system_message(
    messages: list[T], prompt: str, is_system: Callable[[T], bool], text: Callable[[T], str], make: Callable[[str], T]
) -> list[T]:
    """A copy of the messages with the prompt at the end of their first system message, or in a new one before them."""
    for i, message in enumerate(messages):
        if is_system(message):
            if prompt in text(message):
                return messages
            return [*messages[:i], make(f"{text(message)}\n{prompt}"), *messages[i + 1 :]]
    return [make(prompt), *messages]
