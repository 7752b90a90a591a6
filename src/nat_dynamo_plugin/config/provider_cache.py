"""`provider_cache:` - how the prompt caches of other providers are used."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.dialects.provider_cache import Marks, PromptCache, Ttl


class ProviderCacheConfig(Block):
    """What providers with a prompt cache of their own are told; a Dynamo is told nothing of it."""

    NAME: ClassVar = "provider_cache"

    marks: Marks = Field(
        default="automatic",
        description="Where cached prefixes end: automatic leaves it to the provider (Bedrock, which wants marks, gets "
        "them), explicit marks tools, system text and the last two messages, off marks nothing (default "
        "automatic).",
    )
    ttl: Ttl | None = Field(
        default=None,
        description="How long prefixes are kept: 1h costs more to write at Anthropic and Bedrock, 24h is of OpenAI's "
        "models before gpt-5.6, 30m of those since; providers that have no such lifetime keep theirs (default: the "
        "provider's).",
    )

    def options(self, model: str) -> PromptCache:
        """As the dialects have it."""
        return PromptCache(model, self.marks, self.ttl)
