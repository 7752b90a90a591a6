"""The world of one question: BFCL's tools on instances of their own."""

from __future__ import annotations

import copy
import json
from typing import Any

from nat_dynamo_bfcl.benchmark import Task, new_instances, tool_parameters
from nat_dynamo_bfcl.calls import ToolCall


class Environment:
    """A task's tools in its initial state. Calls change that state, so each question has one of its own."""

    def __init__(self, task: Task) -> None:
        instances = new_instances(task)
        # Where two classes share a tool's name the later class has it, as in BFCL.
        self._owners = {name: instances[cls] for cls in task.involved_classes for name in tool_parameters(cls)}

    def __contains__(self, tool: str) -> bool:
        return tool in self._owners

    def call(self, call: ToolCall) -> Any:
        """Make one call and return what the tool returns.

        Raises:
            NameError: there is no such tool.
            Exception: whatever the tool raises.
        """
        if call.name not in self._owners:
            raise NameError(f"name {call.name!r} is not defined")
        # Tools keep the lists they are given and change them later, which must not reach the conversation.
        return getattr(self._owners[call.name], call.name)(**copy.deepcopy(call.arguments))

    def execute(self, call: ToolCall) -> str:
        """Make one call and return what the model gets to see: the text that BFCL makes of a result or an error."""
        try:
            result = self.call(call)
        except Exception as error:  # A tool's error is the model's to handle.
            return f"Error during execution: {error}"
        if isinstance(result, dict):
            try:
                return json.dumps(result)
            except TypeError:
                return str(result)
        return str(result)
