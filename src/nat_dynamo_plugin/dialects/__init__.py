"""Dialects: how a ServingPlan is said to a server and how its usage is read. A dialect a file.

A third party adds one as an entry point in the group `nat_dynamo_plugin.dialects`. It may be a subclass of
`dialects.dialect.Dialect`, an object of one, or a function from a `ServingPlan` to a `Said`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from nat_dynamo_plugin.dialects.origins import AUTO
from nat_dynamo_plugin.nearest import did_you_mean

if TYPE_CHECKING:
    from nat_dynamo_plugin.dialects.dialect import Dialect
    from nat_dynamo_plugin.dialects.provider_cache import PromptCache

ENTRY_POINT_GROUP = "nat_dynamo_plugin.dialects"

BUILTIN: dict[str, str] = {
    "dynamo": "nat_dynamo_plugin.dialects.dynamo:Dynamo",
    "prefix_headers": "nat_dynamo_plugin.dialects.prefix_headers:PrefixHeaders",
    "annotations": "nat_dynamo_plugin.dialects.nvext_annotations:Annotations",
    "telemetry": "nat_dynamo_plugin.dialects.telemetry:Telemetry",
    "session_headers": "nat_dynamo_plugin.dialects.session_headers:SessionHeaders",
    # Other providers, each with what its prompt cache goes by.
    "openai": "nat_dynamo_plugin.dialects.openai:OpenAI",
    "azure": "nat_dynamo_plugin.dialects.azure:Azure",
    "anthropic": "nat_dynamo_plugin.dialects.anthropic:Anthropic",
    "bedrock": "nat_dynamo_plugin.dialects.bedrock:Bedrock",
    "fireworks": "nat_dynamo_plugin.dialects.fireworks:Fireworks",
    "xai": "nat_dynamo_plugin.dialects.xai:XAI",
    "deepseek": "nat_dynamo_plugin.dialects.deepseek:DeepSeek",
    "gemini": "nat_dynamo_plugin.dialects.gemini:Gemini",
    "openrouter": "nat_dynamo_plugin.dialects.openrouter:OpenRouter",
}
DEFAULT_WIRE: tuple[str, ...] = ("dynamo", "prefix_headers")


def _installed() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)} | BUILTIN


def check_dialects(names: Sequence[str]) -> None:
    """Raise `ValueError` for a dialect that is neither built in nor installed, naming the nearest one."""
    if all(name in BUILTIN or name == AUTO for name in names):
        return
    known = {**_installed(), AUTO: ""}
    for name in names:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise ValueError(f"prefix_wire={name!r} is no dialect; allowed are {allowed}{did_you_mean(name, known)}")


def load_dialects(names: Sequence[str], cache: PromptCache | None = None) -> tuple[Dialect, ...]:
    """The dialects of these names; a name given twice counts once.

    Args:
        names: of dialects.
        cache: how other providers' prompt caches are to be used, for their dialects.

    Raises:
        ValueError: for an unknown name, or for an installed dialect that can not be loaded.
    """
    from nat_dynamo_plugin.dialects.provider import ProviderDialect
    from nat_dynamo_plugin.dialects.speaker import as_dialect

    check_dialects(names)
    known = _installed()
    dialects: list[Dialect] = []
    for name in dict.fromkeys(names):
        module, _, attribute = known[name].partition(":")
        try:
            found = getattr(import_module(module), attribute)
            if isinstance(found, type) and issubclass(found, ProviderDialect):
                found = found(cache)
            dialects.append(as_dialect(name, found))
        except Exception as error:
            raise ValueError(f"prefix_wire={name!r}: {known[name]} can not be loaded: {error}") from error
    return tuple(dialects)


__all__ = ["BUILTIN", "DEFAULT_WIRE", "ENTRY_POINT_GROUP", "check_dialects", "load_dialects"]
