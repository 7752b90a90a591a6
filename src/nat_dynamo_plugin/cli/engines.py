"""What is said below figures of an embedded Dynamo: whether its engines computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_SAID = {
    "mocker": "Simulated engines: reuse, placement and queueing are Dynamo's own, latencies are no GPU's.",
    "vllm": "Computed by vLLM on this machine: reuse, placement, queueing and work are real, latencies are its own.",
}


def said_of_engines(llms: Iterable[Any]) -> list[str]:
    """A line for each kind of engine in the `local:` blocks of a config's LLMs, as read from YAML."""
    blocks = [llm["local"] for llm in llms if isinstance(llm, dict) and llm.get("local")]
    kinds = [block.get("engine", "mocker") if isinstance(block, dict) else "mocker" for block in blocks]
    return [_SAID[kind] for kind in dict.fromkeys(kinds) if kind in _SAID]
