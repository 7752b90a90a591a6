"""What a user can choose of other providers' prompt caches. Imports nothing: a config is read by every command."""

from __future__ import annotations

from typing import Literal, NamedTuple

Ttl = Literal["5m", "30m", "1h", "24h"]
Marks = Literal["automatic", "explicit", "off"]


class PromptCache(NamedTuple):
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
