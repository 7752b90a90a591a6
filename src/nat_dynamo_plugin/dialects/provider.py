"""What the dialects of other providers have in common."""

from __future__ import annotations

from nat_dynamo_plugin.dialects.dialect import Dialect
from nat_dynamo_plugin.dialects.provider_cache import PromptCache


class ProviderDialect(Dialect):
    """A dialect of a server that is no Dynamo; says nothing of Dynamo's.

    Args:
        cache: how the prompt cache is to be used.
    """

    def __init__(self, cache: PromptCache | None = None) -> None:
        self.cache = PromptCache() if cache is None else cache
