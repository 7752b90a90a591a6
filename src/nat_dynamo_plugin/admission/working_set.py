"""The working set: how many prompt tokens the questions under way keep in KV caches, what they share counted once."""

from __future__ import annotations

from collections import Counter

from nat_dynamo_plugin.admission.prompts import Prompt

GAIN = 1 / 32
"""Weight of the newest call in the means."""
FIRST_TOKENS_A_BYTE = 0.25


class WorkingSet:
    """Adds up prompts as a tree, for a KV cache keeps what prompts have in common once.

    Tokens are estimated before a prompt is sent, from its bytes; how many tokens a byte makes, and how much a question
    grows from one call to the next, is learned from answers. From then on a question is as large as its last answer
    said. What several workers keep counts once.
    """

    def __init__(self) -> None:
        self._tokens_a_byte = FIRST_TOKENS_A_BYTE
        self._growth = 0.0
        self._usual_first = 0.0
        self._unknown = 0
        self._holders: Counter[int] = Counter()
        self._bytes = 0
        self._grown = 0
        self._questions = 0

    def emptied(self) -> WorkingSet:
        """An empty set that has learned as much."""
        empty = WorkingSet()
        empty._tokens_a_byte, empty._growth, empty._usual_first = self._tokens_a_byte, self._growth, self._usual_first
        return empty

    @property
    def tokens(self) -> float:
        """Tokens of all questions in the set."""
        known = self._bytes * self._tokens_a_byte
        return known + self._unknown * self._usual_first + self._grown + self._questions * self._growth

    def cost(self, prompt: Prompt, grown: int = 0) -> float:
        """Tokens that a question would add.

        Args:
            prompt: its first one; as many tokens as usual if it could not be read.
            grown: tokens that it has grown by since then.
        """
        first = self.missing(prompt) * self._tokens_a_byte if prompt.pieces else self._usual_first
        return first + grown + self._growth

    def missing(self, prompt: Prompt) -> int:
        """Bytes of the prompt that no question in the set has."""
        holders = self._holders
        return sum(size for key, size in prompt.pieces if key not in holders)

    def add(self, prompt: Prompt, grown: int = 0) -> None:
        """A question with this first prompt is under way now; `grown`: tokens that it has grown by since then."""
        self._bytes += self.missing(prompt)
        self._holders.update(key for key, _ in prompt.pieces)
        self._questions += 1
        self._grown += grown
        self._unknown += not prompt.pieces

    def grow(self, tokens: int) -> None:
        """A question in the set has so many tokens more."""
        self._grown += tokens

    def remove(self, prompt: Prompt, grown: int = 0) -> None:
        """A question that was added, and has grown by so much in all, no longer is."""
        self._questions -= 1
        self._grown -= grown
        self._unknown -= not prompt.pieces
        for key, size in prompt.pieces:
            if self._holders[key] > 1:
                self._holders[key] -= 1
            else:
                del self._holders[key]
                self._bytes -= size

    def learn(self, prompt: Prompt, first_tokens: int, growth: int) -> None:
        """A question's call was answered.

        Args:
            prompt: the question's first prompt.
            first_tokens: tokens of that prompt.
            growth: tokens that the question has more than after its call before, 0 or more.
        """
        self._usual_first += GAIN * (first_tokens - self._usual_first)
        if prompt.pieces:
            self._tokens_a_byte += GAIN * (first_tokens / prompt.size - self._tokens_a_byte)
        self._growth += GAIN * (growth - self._growth)
