"""A call without its content: how long it is, and which beginning it shares with which other calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from nat_dynamo_plugin.recording.rows import RecordedCall, RecordingError
from nat_dynamo_plugin.recording.words import words

SHORTEST_S = 1e-6
"""What a call takes at least, so that of two calls one is over before the other begins."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One call.

    Attributes:
        question: calls of one question have the same.
        started_s: when it began, in seconds, from any beginning.
        took_s: seconds to its end.
        prompt_tokens: of the whole prompt.
        completion_tokens: of the answer.
        blocks: what each `block_tokens` of the prompt hold, by any name; two prompts share a prefix where these are
            equal from the start. The last one may be in part.
        block_tokens: tokens of a block.
    """

    question: str
    started_s: float
    took_s: float
    prompt_tokens: int
    completion_tokens: int
    blocks: tuple[str, ...]
    block_tokens: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How a trace is made to fit a server.

    Attributes:
        tokens_per_word: how many tokens the server's model makes of one of our words.
        scale: what all numbers of tokens are multiplied with, above 0.
        questions: how many are kept, the first ones; `None` for all.
        longest_pause_s: longer ones between the calls of a question are cut to this; `None` for as they were.
    """

    tokens_per_word: float = 1.0
    scale: float = 1.0
    questions: int | None = None
    longest_pause_s: float | None = None


def rows_of(shapes: Sequence[Shape], fit: Fit) -> list[RecordedCall]:
    """Calls of the same lengths that share what these shared, in words that say nothing.

    Args:
        shapes: the calls.
        fit: to the server.

    Raises:
        RecordingError: there is no call.
    """
    ordered = sorted(shapes, key=lambda shape: (shape.question, shape.started_s))
    questions = [list(group) for _, group in groupby(ordered, key=lambda shape: shape.question)]
    questions.sort(key=lambda calls: calls[0].started_s)
    rows = [row for calls in questions[: fit.questions] for row in _rows(calls, fit)]
    if not rows:
        raise RecordingError("the trace holds no call of a model")
    return rows


def _rows(calls: Sequence[Shape], fit: Fit) -> list[RecordedCall]:
    """The calls of a question; where all are idle for too long, what comes later comes earlier."""
    rows = []
    ended_s, earlier_s = calls[0].started_s, 0.0
    for call in calls:
        pause_s = call.started_s - ended_s
        if fit.longest_pause_s is not None and pause_s > fit.longest_pause_s:
            earlier_s += pause_s - fit.longest_pause_s
        took_s = max(call.took_s, SHORTEST_S)
        ended_s = max(ended_s, call.started_s + took_s)
        rows.append(
            RecordedCall(
                question=call.question,
                started_s=call.started_s - earlier_s,
                took_s=took_s,
                messages=[{"role": "user", "content": _text(call, fit)}],
                prompt_tokens=max(1, round(call.prompt_tokens * fit.scale)),
                completion_tokens=max(1, round(call.completion_tokens * fit.scale)),
            )
        )
    return rows


def _text(call: Shape, fit: Fit) -> str:
    words_per_token = fit.scale / fit.tokens_per_word
    whole = round(call.block_tokens * words_per_token)
    parts = []
    left = max(1, round(call.prompt_tokens * words_per_token))
    for block in call.blocks:
        if left <= 0:
            break
        # A block in part is the beginning of the whole one.
        parts.append(words(block, min(whole, left)))
        left -= whole
    if left > 0:
        parts.append(words(f"{call.question} {call.started_s}", left))
    return " ".join(parts)
