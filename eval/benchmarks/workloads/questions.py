"""What a workload is made of: questions that arrive, each a chain of calls whose prompts begin alike."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

_FIRST_TOKEN, _LAST_TOKEN = 300, 32_000


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call.

    Attributes:
        prompt_tokens: of its whole prompt, which begins with the prompt of the call before.
        output_tokens: of its answer, 1 or more.
        gap_s: from its end to the next call's start: the agent's tools.
    """

    prompt_tokens: int
    output_tokens: int
    gap_s: float


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        arrival_s: when it comes.
        kind: what a client can know of it before it is answered.
        head: what its prompts begin with and others' too: names and tokens, outermost first.
        calls: its calls, one after the other.
    """

    arrival_s: float
    kind: str
    head: tuple[tuple[str, int], ...]
    calls: tuple[Call, ...]

    @property
    def head_tokens(self) -> int:
        """Tokens that it has in common with others of its kind."""
        return sum(tokens for _, tokens in self.head)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Workers, what each caches, and how it batches.

    Attributes:
        workers: how many.
        blocks: KV blocks of 16 tokens of each.
        max_num_seqs: sequences that a worker decodes at once.
    """

    workers: int
    blocks: int
    max_num_seqs: int = 64

    @property
    def tokens(self) -> int:
        """That all caches hold."""
        return 16 * self.workers * self.blocks


@dataclass(frozen=True, slots=True)
class Workload:
    """Questions in the order of their arrival, and the cluster they come to."""

    name: str
    questions: tuple[Question, ...]
    cluster: Cluster

    def working_set(self) -> float:
        """What all questions would keep in caches at once at their largest, as a share of what these hold."""
        heads = {part[: i + 1] for q in self.questions for part in [q.head] for i in range(len(part))}
        own = sum(q.calls[-1].prompt_tokens - q.head_tokens for q in self.questions)
        return (sum(head[-1][1] for head in heads) + own) / self.cluster.tokens


def prompts(question: Question, instance: str) -> list[str]:
    """The token ids of each call's prompt, as the inside of a JSON list; `instance` makes its rest its own."""
    head = [
        _stream("/".join(name for name, _ in question.head[: n + 1]), tokens)
        for n, (_, tokens) in enumerate(question.head)
    ]
    own = _tokens(random.Random(f"own-{instance}"), question.calls[-1].prompt_tokens - question.head_tokens)
    known = question.head_tokens
    return [",".join((*head, *own[: max(1, call.prompt_tokens - known)])) for call in question.calls]


def _tokens(source: random.Random, count: int) -> list[str]:
    return [str(token) for token in source.choices(range(_FIRST_TOKEN, _LAST_TOKEN), k=max(1, count))]


@lru_cache(maxsize=64)
def _stream(name: str, count: int) -> str:
    return ",".join(_tokens(random.Random(f"shared-{name}"), count))
