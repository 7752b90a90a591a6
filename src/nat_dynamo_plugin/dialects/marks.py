"""Where in a prompt marks of a prompt cache go: at most four, counting the caller's, long-lived ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MAX_MARKS = 4
"""Marks of a request, by Anthropic's and Bedrock's documentation."""
LEAST_TOKENS = 1024
"""Shortest prefix that any of their models caches. A token has at least one byte, so a shorter text has none to cache
for sure; a mark there would be lost."""
SHORT, LONG = "5m", "1h"


@dataclass(slots=True)
class Block:
    """A part of a prompt that may end a prefix.

    Attributes:
        size: its length in bytes, or a little less.
        put: marks it; `None` if it can not be marked.
        ttl: the lifetime of the caller's mark on it; `None` if there is none.
    """

    size: int
    put: Callable[[str], None] | None = None
    ttl: str | None = None


@dataclass(slots=True)
class Prompt:
    """A prompt as the provider reads it: tools, system text, messages."""

    tools: Sequence[Block]
    system: Sequence[Block]
    messages: Sequence[Sequence[Block]]

    def blocks(self) -> list[Block]:
        """All of it, in order."""
        return [*self.tools, *self.system, *(block for message in self.messages for block in message)]


def mark(prompt: Prompt, ttl: str | None = None, most: int = MAX_MARKS, *, last_is_marked: bool = False) -> None:
    """Mark the ends of the tools, of the system text and of the last two messages, as far as there are marks left.

    The end of the prompt comes first, for the next turn begins with it; then the system text and the tools, which other
    questions share; then the message before, as a second hold for the next turn.

    Args:
        prompt: the prompt.
        ttl: the lifetime of our marks; `None` for the provider's default, five minutes.
        most: marks that the provider takes.
        last_is_marked: whether the provider marks the end by itself, which is one of its marks.
    """
    blocks = prompt.blocks()
    left = most - sum(block.ttl is not None for block in blocks) - last_is_marked
    wanted: list[Block] = []
    for block in _ends(prompt, skip_last=last_is_marked):
        if len(wanted) < left and block.ttl is None and not any(block is one for one in wanted):
            wanted.append(block)
    upto, place = 0, {}
    for number, block in enumerate(blocks):
        upto += block.size
        place[id(block)] = number, upto
    for block in wanted:
        number, size = place[id(block)]
        if size < LEAST_TOKENS or block.put is None:
            continue
        lifetime = lifetime_at(blocks, number, ttl)
        if lifetime is not None:
            block.put(lifetime)


def lifetime_at(blocks: Sequence[Block], number: int, ttl: str | None) -> str | None:
    """The lifetime of a mark of ours at a place, so that long ones stay before short ones; `None` if none fits.

    Args:
        blocks: the prompt, with the caller's marks.
        number: the place.
        ttl: the one wished for.
    """
    short_before = any(block.ttl == SHORT for block in blocks[:number])
    long_behind = any(block.ttl == LONG for block in blocks[number + 1 :])
    if long_behind:
        return None if short_before else LONG
    return LONG if ttl == LONG and not short_before else SHORT


def _ends(prompt: Prompt, *, skip_last: bool) -> Iterable[Block]:
    said = [end for message in prompt.messages if (end := _end(message)) is not None]
    if not skip_last:
        yield from said[-1:]
    for part in (prompt.system, prompt.tools):
        end = _end(part)
        if end is not None:
            yield end
    yield from said[-2:-1]


def _end(blocks: Sequence[Block]) -> Block | None:
    """The last block that can be marked."""
    return next((block for block in reversed(blocks) if block.put is not None or block.ttl is not None), None)
