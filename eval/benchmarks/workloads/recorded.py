"""Workloads that were recorded: BFCL questions, a public trace of conversations, and agents whose prompts grow."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

from contention_shape import Shape

from workloads.questions import Call, Cluster, Question, Workload

_TRACE_SCALE = 1 / 8
"""Factor on the trace's prompt tokens, so that a cluster of small caches is to them what theirs was."""
_GROWING_CALLS = (2, 2, 2, 2, 2, 3, 4, 10, 14)


def bfcl(seed: int, count: int = 72, rate: float = 14.0, cluster: Cluster | None = None) -> Workload:
    """Questions of the BFCL agent's shape, every other one of the recording, as `contention.py` asks them."""
    shape = Shape.load()
    source = random.Random(seed)
    times = sorted(source.uniform(0, count / rate) for _ in range(count))
    deck: list[Question] = []
    questions = []
    for at in times:
        if not deck:
            deck = [
                Question(
                    0.0,
                    row.kind,
                    (("system", shape.system_tokens), *((name, shape.class_tokens[name]) for name in row.classes)),
                    tuple(Call(call.prompt_tokens, call.output_tokens, call.gap_ms / 10_000) for call in row.calls),
                )
                for row in source.sample(shape.halves()[1], len(shape.halves()[1]))
            ]
        question = deck.pop()
        questions.append(Question(at, question.kind, question.head, question.calls))
    return Workload(f"bfcl {count}", tuple(questions), cluster or Cluster(2, 2304))


def growing(seed: int, rate: float = 24.0, seconds: float = 6.0, cluster: Cluster | None = None) -> Workload:
    """Agents with prompts of their own that grow by 700 tokens a call: 2 to 14 calls, most of them 2."""
    source = random.Random(f"growing-{seed}")
    count = round(rate * seconds)
    questions = []
    for at in sorted(source.uniform(0, seconds) for _ in range(count)):
        calls = source.choice(_GROWING_CALLS)
        questions.append(
            Question(
                at,
                f"calls={calls}",
                (),
                tuple(
                    Call(600 + 700 * n, max(1, round(source.uniform(20, 60))), source.uniform(0.02, 0.1))
                    for n in range(calls)
                ),
            )
        )
    return Workload("growing", tuple(questions), cluster or Cluster(2, 4096, 16))


def trace(file: Path, seed: int, count: int = 120, rate: float = 24.0, cluster: Cluster | None = None) -> Workload:
    """Conversations of a trace in Mooncake's form (hashes of KV blocks of 512 tokens), prompts scaled to an eighth.

    Raises:
        OSError: there is no such file.
    """
    # What is no conversation, or was cut in between, tells admission nothing.
    conversations = [
        rows for rows in _conversations(file) if len(rows) > 1 and all(a[0] <= b[0] for a, b in pairwise(rows))
    ]
    source = random.Random(f"trace-{seed}")
    chosen = source.sample(conversations, count)
    times = sorted(source.uniform(0, count / rate) for _ in chosen)
    questions = []
    for at, rows in zip(times, chosen, strict=True):
        calls = tuple(
            Call(max(16, round(length * _TRACE_SCALE)), output, source.uniform(0.2, 1.0)) for length, output in rows
        )
        questions.append(Question(at, "chat", (), calls))
    return Workload("trace", tuple(questions), cluster or Cluster(2, 4096))


def _conversations(file: Path) -> list[list[tuple[int, int]]]:
    """Tokens of each conversation's prompts and answers: a request continues the one whose blocks it begins with."""
    ends: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            ids = tuple(row["hash_ids"])
            for cut in range(len(ids), 1, -1):
                rows = ends.pop(ids[:cut], None)
                if rows is not None:
                    break
            else:
                rows = []
            # The last block is rarely full, so the next request has another one in its place.
            rows.append((row["input_length"], max(1, row["output_length"])))
            ends[ids[:-1] if len(ids) > 2 else ids] = rows
    return list(ends.values())
