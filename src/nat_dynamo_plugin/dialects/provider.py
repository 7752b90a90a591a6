"""What the dialects of other providers have in common, and what a user can choose of their prompt caches."""

from __future__ import annotations

from typing import Literal

import msgspec

from nat_dynamo_plugin.dialects.dialect import Dialect

Ttl = Literal["5m", "30m", "1h", "24h"]
Marks = Literal["automatic", "explicit", "off"]


class PromptCache(msgspec.Struct, frozen=True):
    """How a provider's prompt cache is to be used.

    Attributes:
        model: the model that is asked for, where a call says none.
        marks: `automatic` leaves to the provider where prefixes end, `explicit` marks the ends of tools, system text
            and the last two messages, `off` marks nothing.
        ttl: how long prefixes are to be kept, where the provider has that lifetime; `None` for its default.
    """

    model: str = ""
    marks: Marks = "automatic"
    ttl: Ttl | None = None


class ProviderDialect(Dialect):
    """A dialect of a server that is no Dynamo; says nothing of Dynamo's.

    Args:
        cache: how the prompt cache is to be used.
    """

    def __init__(self, cache: PromptCache | None = None) -> None:
        self.cache = PromptCache() if cache is None else cache
