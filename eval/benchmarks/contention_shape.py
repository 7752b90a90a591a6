"""The shape of the BFCL agent's questions, recorded from a finished `nat eval`, and questions made of it.

What is kept of a question: its number of user turns, its tool sets, and of each LLM call the prompt tokens, the output
tokens and the time until the next call. The text is not: a replayed prompt consists of pseudo-random token ids, with
the tokens in common that the real prompts have in common (system prompt and tools first, class by class).

    python eval/benchmarks/contention_shape.py eval/results/full/workflow_output.json

records it anew; `configs/eval_bfcl_full.yml` makes that file.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

SHAPE_FILE = Path(__file__).with_name("contention_shape.json")
_FIRST_TOKEN, _LAST_TOKEN = 300, 32_000
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call: tokens of its whole prompt and of its answer, and ms from its end to the next call's start."""

    prompt_tokens: int
    output_tokens: int
    gap_ms: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded question."""

    id: str
    turns: int
    classes: tuple[str, ...]
    calls: tuple[Call, ...]

    @property
    def kind(self) -> str:
        """What a server can know of the question before it answers: its number of user turns and its tools."""
        return f"turns={self.turns},tools={'+'.join(self.classes)}"


@dataclass(frozen=True)
class Shape:
    """All recorded questions, and how many prompt tokens the system prompt and each class's tools take."""

    system_tokens: int
    class_tokens: dict[str, int]
    questions: tuple[Recorded, ...]

    @classmethod
    def load(cls, file: Path = SHAPE_FILE) -> Shape:
        """Read a shape file."""
        data = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            data["system_tokens"],
            data["class_tokens"],
            tuple(
                Recorded(row["id"], row["turns"], tuple(row["classes"]), tuple(Call(*call) for call in row["calls"]))
                for row in data["questions"]
            ),
        )

    def halves(self) -> tuple[tuple[Recorded, ...], tuple[Recorded, ...]]:
        """Yesterday's questions, to learn from, and today's, to be asked: every other one, so no question is in
        both."""
        return self.questions[0::2], self.questions[1::2]

    def prompts(self, question: Recorded, instance: int) -> list[str]:
        """The token ids of each call's prompt, as the inside of a JSON list.

        Two instances share what all questions with these tools share; the rest is this instance's own.
        """
        head = [_stream("system", self.system_tokens)]
        head += [_stream(name, self.class_tokens[name]) for name in question.classes]
        known = self.system_tokens + sum(self.class_tokens[name] for name in question.classes)
        own = _tokens(random.Random(f"own-{instance}"), max(call.prompt_tokens for call in question.calls) - known)
        shared = ",".join(head)
        return [",".join((shared, *own[: max(1, call.prompt_tokens - known)])) for call in question.calls]


def _tokens(source: random.Random, count: int) -> list[str]:
    return [str(token) for token in source.choices(range(_FIRST_TOKEN, _LAST_TOKEN), k=max(1, count))]


@lru_cache(maxsize=64)
def _stream(name: str, count: int) -> str:
    return ",".join(_tokens(random.Random(f"shared-{name}"), count))


def record(workflow_output: Path) -> dict[str, Any]:
    """The shape of a finished run, as it is kept."""
    questions = []
    for item in json.loads(workflow_output.read_text(encoding="utf-8")):
        records = []
        for step in item["intermediate_steps"]:
            metadata = step["payload"].get("metadata") or {}
            if found := (metadata.get("provided_metadata") or {}).get("dynamo_call"):
                records.append(found)
        records.sort(key=lambda call: call["call_index"])
        starts = [call["started_at"] for call in records[1:]]
        ends = [call["started_at"] + call["client_total_ms"] / 1000 for call in records]
        gaps = [max(0.0, 1000 * (start - end)) for start, end in zip(starts, ends, strict=False)] + [0.0]
        questions.append(
            {
                "id": item["id"],
                "turns": len(item["turns"]),
                "classes": item["involved_classes"],
                "calls": [
                    [call["prompt_tokens"], call["completion_tokens"], round(gap)]
                    for call, gap in zip(records, gaps, strict=True)
                ],
            }
        )
    system, classes = _head_tokens({name for row in questions for name in row["classes"]})
    return {"format": _FORMAT, "system_tokens": system, "class_tokens": classes, "questions": questions}


def _head_tokens(classes: set[str]) -> tuple[int, dict[str, int]]:
    """Prompt tokens of the agent's system prompt with the frame of its tools, and of each class's tools."""
    from jinja2 import Environment

    from nat_dynamo_bfcl.agent import SYSTEM_PROMPT
    from nat_dynamo_bfcl.benchmark import function_docs
    from nat_dynamo_bfcl.schema import to_openai_tool
    from nat_dynamo_plugin.local.model import CHAT_TEMPLATE, load_tokenizer, tokenizer_file

    tokenizer = load_tokenizer(tokenizer_file())
    template = Environment().from_string(CHAT_TEMPLATE.replace("\\\\n", "\\n"))

    def tokens(names: Sequence[str]) -> int:
        tools = [to_openai_tool(doc) for name in names for doc in function_docs(name)]
        text = template.render(messages=[{"role": "system", "content": SYSTEM_PROMPT}], tools=tools)
        return len(tokenizer.encode(text).ids)

    each = {name: tokens([name]) for name in sorted(classes)}
    first, second = sorted(classes)[:2]
    frame = each[first] + each[second] - tokens([first, second])
    return frame, {name: count - frame for name, count in each.items()}


def main() -> None:
    """Write the shape of the run named on the command line."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} eval/results/full/workflow_output.json")
    shape = record(Path(sys.argv[1]))
    SHAPE_FILE.write_text(json.dumps(shape, separators=(",", ":")).replace('{"id"', '\n{"id"') + "\n", encoding="utf-8")
    calls = [len(row["calls"]) for row in shape["questions"]]
    print(f"{len(calls)} questions, {sum(calls) / len(calls):.1f} calls each; {SHAPE_FILE}")


if __name__ == "__main__":
    main()
