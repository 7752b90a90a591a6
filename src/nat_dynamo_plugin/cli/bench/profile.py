"""The built-in load: questions as an agent with tools asks them. Pure."""

from __future__ import annotations

import random
from typing import Any

from nat_dynamo_plugin.recording.rows import RecordedCall
from nat_dynamo_plugin.recording.words import words

SYSTEM_WORDS = 600
"""Instructions and descriptions of tools, which all questions share."""
CALLS = (2, 2, 2, 2, 2, 3, 4, 6, 10)
"""How many calls questions make: most few, some many."""
_TOOK_S = 1.0


def agent_questions(count: int, seed: int) -> list[RecordedCall]:
    """Questions of an agent that calls tools, one tool a call, with the pauses that the tools take.

    Each call's prompt is the last one's with the model's answer (10 to 60 words) and the tool's result (100 to 500
    words). A pause is 20 to 200 ms. An answer is to have 16 to 64 tokens. The same for the same seed.

    Args:
        count: of questions.
        seed: of their lengths, pauses and words.
    """
    drawn = random.Random(seed)
    rows = []
    for k in range(count):
        name = f"q{k:04d}"
        messages: list[Any] = [
            {"role": "system", "content": words(f"{seed} system", SYSTEM_WORDS)},
            {"role": "user", "content": words(f"{seed} {name}", drawn.randint(20, 120))},
        ]
        started_s = float(k)
        for turn in range(drawn.choice(CALLS)):
            tokens = drawn.randint(16, 64)
            rows.append(RecordedCall(name, started_s, _TOOK_S, list(messages), completion_tokens=tokens))
            messages.append({"role": "assistant", "content": words(f"{seed} {name} {turn}", drawn.randint(10, 60))})
            messages.append({"role": "user", "content": words(f"{seed} {name} {turn} tool", drawn.randint(100, 500))})
            started_s += _TOOK_S + drawn.uniform(0.02, 0.2)
    return rows
