"""What one question came to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Result:
    """What one question came to. This, as JSON, is the workflow's output.

    `calls` holds by turn and step the executed calls, as BFCL's checker takes them. A turn ends with the reply
    that calls no tool, or has a call that can not be read; its text is in `answers`. The last turn may have none, for
    BFCL checks it also if it was cut at the limit of steps. `error` says why the question ended early, if it did.
    """

    id: str
    calls: list[list[list[str]]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    llm_calls: int = 0
    error: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)
