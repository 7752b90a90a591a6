"""Which dialect a server speaks, by its address. An address that is not listed is nobody's we know."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

AUTO = "auto"

HOSTS: dict[str, str] = {
    "api.openai.com": "openai",
    "*.api.openai.com": "openai",
    "*.openai.azure.com": "azure",
    "api.anthropic.com": "anthropic",
    "bedrock-runtime.*.amazonaws.com": "bedrock",
    "bedrock-runtime-fips.*.amazonaws.com": "bedrock",
    "api.fireworks.ai": "fireworks",
    "api.x.ai": "xai",
    "*.api.x.ai": "xai",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gemini",
    "openrouter.ai": "openrouter",
}
"""Dialects by host; `*` stands for anything. Names of models play no part, for anybody may serve one of any name."""

UNKNOWN = ("session_headers", "prefix_headers")
"""What a server is told that is not listed: headers, for a field in a body that it does not know may be a 400."""


def provider_at(origin: str) -> str | None:
    """The dialect of a provider's server; `None` for a server that is not listed."""
    try:
        url = urlsplit(origin)
        host = url.hostname or ""
    except ValueError:
        return None
    if url.scheme != "https":
        return None
    return next((name for pattern, name in HOSTS.items() if fnmatchcase(host, pattern)), None)


def dialects_for(
    names: Sequence[str], origin: str, default: Sequence[str], *, is_dynamo: bool, chosen: bool
) -> list[str]:
    """The dialects to speak.

    Args:
        names: as in `prefix_wire`; `auto` stands for what the address tells.
        origin: the server's.
        default: the dialects of a Dynamo.
        is_dynamo: whether the server is one for sure, as one that we started.
        chosen: whether the user has named them. Of dialects that nobody named, a provider's server hears its own.
    """
    provider = None if is_dynamo else provider_at(origin)
    if not chosen:
        return list(default) if provider is None else [provider]
    told = default if is_dynamo else UNKNOWN if provider is None else (provider,)
    return [said for name in names for said in (told if name == AUTO else (name,))]
