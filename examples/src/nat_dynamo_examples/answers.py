"""What the simulated engines of the embedded Dynamo say, since they have no model."""

from __future__ import annotations

from nat_dynamo_plugin.local import ScriptedAnswer

ANSWER = "There are 17 bolts in stock."


def scripted_answers() -> list[ScriptedAnswer]:
    """A tool call and the answer that follows its result, as each framework's agent expects them of a model."""
    bolts = {"item": "bolts"}
    return [
        ScriptedAnswer("tool", tool_calls=[("stock_level", bolts)]),
        ScriptedAnswer("answer", ANSWER),
        # Semantic Kernel puts the plugin's name before the function's.
        ScriptedAnswer("plugin-tool", tool_calls=[("tools-stock_level", bolts)]),
        # CrewAI's agents call tools in plain text.
        ScriptedAnswer("text-tool", 'Thought: I look it up.\nAction: stock_level\nAction Input: {"item": "bolts"}'),
        ScriptedAnswer("text-answer", f"Thought: I now know the final answer.\nFinal Answer: {ANSWER}"),
    ]
