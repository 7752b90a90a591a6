"""Headers that must not leave: looked for where a request is made, behind every layer, so whoever set them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from nat_dynamo_plugin.http.headers import RawHeaders


class Banned:
    """Names of headers, whatever their case.

    Args:
        patterns: names, where `*` stands for any characters: `x-stainless-*`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(pattern.lower() for pattern in patterns)
        # Requests have the same few names again and again.
        self._is_banned = lru_cache(maxsize=1024)(self._matches)

    def _matches(self, name: bytes) -> bool:
        return self.pattern_of(name.decode("latin-1")) is not None

    def pattern_of(self, name: str) -> str | None:
        """The pattern that bans a header, or `None`."""
        lower = name.lower()
        return next((pattern for pattern in self.patterns if fnmatchcase(lower, pattern)), None)

    def without(self, raw: RawHeaders) -> RawHeaders:
        """The headers that may leave, in order."""
        banned = self._is_banned
        return [header for header in raw if not banned(header[0])]
