"""How many tokens a prompt has, by its bytes; learned from what servers count. No I/O in here."""

from __future__ import annotations

import re

BYTES_PER_TOKEN = 4.0
"""Before a model has answered: English text in most tokenizers."""
_LEAST = 0.5
_MEMORY = 0.9
"""Weight of all answers before the newest one."""
_MEDIA = re.compile(rb'(?<!\\)"data:[^"\s,]{1,200};base64,[^"]*"')
_MEDIA_TOKENS = 1000


class PromptSize:
    """Estimates the tokens of prompts, of one model."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._tokens = 0.0

    @property
    def bytes_per_token(self) -> float:
        """Bytes of JSON a token of the prompt."""
        # Of sums, so that a long prompt counts for more: of a short one most is the JSON around it.
        return max(_LEAST, self._bytes / self._tokens) if self._tokens else BYTES_PER_TOKEN

    def tokens(self, text: bytes) -> float:
        """The tokens of a part of a request, or of all of it; pictures and the like count as 1000 each."""
        size, media = len(text), 0
        if b";base64," in text:
            for found in _MEDIA.finditer(text):
                size -= len(found.group())
                media += 1
        return size / self.bytes_per_token + media * _MEDIA_TOKENS

    def learn(self, size: int, tokens: int) -> None:
        """Take in that a request of so many bytes had a prompt of so many tokens, 1 or more."""
        self._bytes = _MEMORY * self._bytes + size
        self._tokens = _MEMORY * self._tokens + tokens
