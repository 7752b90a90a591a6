"""`record:` - keep every call with its answer, to run the agent again on an embedded Dynamo (`local.answers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import File
from nat_dynamo_plugin.recording.rows import redactor


class RecordConfig(Block):
    """Where calls are recorded. In YAML also just the file's name. Prompts and answers are in it, in clear."""

    NAME: ClassVar = "record"

    file: File = Field(description="The recording, JSON lines that only its owner can read; calls are added to it.")
    redact: list[str] = Field(
        default_factory=list,
        description="Regular expressions; what they match in prompts and answers is written as [redacted].",
    )

    @model_validator(mode="before")
    @classmethod
    def _just_a_file(cls, data: Any) -> Any:
        return {"file": data} if isinstance(data, str | Path) else data

    @field_validator("file")
    @classmethod
    def _can_be_written(cls, value: Path) -> Path:
        if not value.parent.is_dir():
            raise ValueError(f"there is no folder {str(value.parent)!r}; make it first")
        return value

    @field_validator("redact")
    @classmethod
    def _are_expressions(cls, value: list[str]) -> list[str]:
        redactor(value)
        return value
