"""`deadlines:` - how long a call, and a question with all its calls, may take."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import Seconds


class DeadlinesConfig(Block):
    """How long a call, and a question with all its calls, may take."""

    NAME: ClassVar = "deadlines"
    FLAT: ClassVar = {"call_timeout": "call", "question_deadline": "question"}

    call: Seconds | None = Field(
        default=None,
        description="Longest time of a call in seconds, with everything in it: the wait at the gate, retries, and the "
        "answer to its last byte (default: none; `request_timeout` bounds silence alone).",
    )
    question: Seconds | None = Field(
        default=None,
        description="Longest time in seconds from a question's first call to the end of its last; each call gets what "
        "is left of it (default: none).",
    )
