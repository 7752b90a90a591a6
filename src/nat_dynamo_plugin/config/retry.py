"""`retry:` - which failed calls are made again, and how often."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.values import Seconds, number, value_of
from nat_dynamo_plugin.nearest import shown

ALWAYS = frozenset({408, 409, 529})
"""Retried besides `on_status`: what the OpenAI library retries, and Dynamo 1.6.0's word for overload."""

_PATTERN = re.compile("[1-5x][0-9x][0-9x]")


def expand_statuses(codes: Iterable[int | str]) -> frozenset[int]:
    """HTTP statuses of NAT's patterns: a number, or text in which `x` stands for any digit and `*` for the rest.

    Raises:
        ValueError: for what is neither.
    """
    statuses: set[int] = set()
    for code in codes:
        pattern = str(code).lower().replace("*", "x" * max(1, 4 - len(str(code))))
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{code!r} is no HTTP status; use one from 100 to 599, or a pattern like 5xx")
        regex = re.compile(pattern.replace("x", "[0-9]"))
        statuses.update(status for status in range(100, 600) if regex.fullmatch(str(status)))
    return frozenset(statuses)


class RetryConfig(Block):
    """Which failed calls are made again, and how often."""

    NAME: ClassVar = "retry"
    # NAT has two layers of retries with a number each; here is one.
    FLAT: ClassVar = {
        "max_retries": "max_retries",
        "num_retries": "max_retries",
        "do_auto_retry": "max_retries",
        "retry_on_status_codes": "on_status",
        "retry_on_errors": "on_errors",
    }

    max_retries: Annotated[int, number(least=0)] = Field(
        default=10,
        description="Most times a call that fails is made again, 0 or more (default 10). NAT's `num_retries` counts "
        "the first request too, and goes before its `max_retries`; `do_auto_retry: false` is 0.",
    )
    on_status: list[int | str] = Field(
        default=[429, 500, 502, 503, 504],
        description="HTTP statuses that are tried again, as numbers or patterns like 5xx, besides 408, 409 and 529 "
        "(default 429, 500, 502, 503, 504). None here and none in `on_errors`: every error.",
    )
    on_errors: list[str] | None = Field(
        default=["Too Many Requests", "429"],
        description="Texts that make any error answer be tried again, in any case; three digits mean the status "
        "(default Too Many Requests, 429).",
    )

    budget: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = Field(
        default=0.2,
        description="Retries that all calls of a server may add, as a share of the calls, besides 10 a second; those "
        "after a refusal for overload are not counted, for they wait for room. null: any number (default 0.2).",
    )
    max_elapsed: Seconds = Field(
        default=300.0, description="Seconds after which a call that fails is not made again (default 300)."
    )

    @field_validator("on_status")
    @classmethod
    def _known_statuses(cls, value: list[int | str]) -> list[int | str]:
        expand_statuses(value)
        return value

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> dict[str, Any]:
        fields = {cls.FLAT[name]: value for name, value in flat.items() if cls.FLAT[name] != "max_retries"}
        if "max_retries" in flat:
            fields["max_retries"] = flat["max_retries"]
        if flat.get("num_retries") is not None:
            fields["max_retries"] = int(value_of("num_retries", flat["num_retries"]) or 1) - 1
        if "do_auto_retry" in flat:
            try:
                again = TypeAdapter(bool).validate_python(flat["do_auto_retry"])
            except ValidationError:
                raise ValueError(
                    f"{shown('do_auto_retry', flat['do_auto_retry'])} is not allowed: use true or false"
                ) from None
            if not again:
                fields["max_retries"] = 0
        return fields

    def flat(self) -> dict[str, Any]:
        return {**super().flat(), "num_retries": self.max_retries + 1, "do_auto_retry": self.max_retries > 0}

    @property
    def statuses(self) -> frozenset[int]:
        """All statuses that are tried again; as in NAT, no filter at all means every error."""
        if not self.on_status and not self.on_errors:
            return frozenset(range(400, 600))
        return ALWAYS | expand_statuses([*self.on_status, *self._numbers])

    @property
    def texts(self) -> tuple[str, ...]:
        """What is looked for in an error answer, in lower case."""
        return tuple(text.lower() for text in self.on_errors or () if text and text not in self._numbers)

    @property
    def _numbers(self) -> list[str]:
        # NAT looks for a text like "429" in "Error code: 429 - ..."; in the answer alone it might be any number.
        return [text for text in self.on_errors or () if re.fullmatch("[1-5][0-9][0-9]", text)]
