"""Values as users write them: a number, a level, `auto` or null; seconds; files."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo

from nat_dynamo_plugin.nearest import shown
from nat_dynamo_plugin.question.hints import U32_MAX, PrefixLevel

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

Auto = Literal["auto"]


def value_of(
    name: str,
    value: object,
    *,
    levels: bool = False,
    auto: bool = False,
    null: bool = False,
    least: int = 1,
    most: int | None = None,
) -> PrefixLevel | int | str | None:
    """A whole number, or one of the words that a field takes instead; numbers may be given as text or as `8.0`.

    Args:
        name: the field.
        value: what the user wrote.
        levels: whether LOW, MEDIUM, HIGH will do, in any case.
        auto: whether `auto` will do, in any case.
        null: whether null will do.
        least: the smallest number.
        most: the largest, or `None` for no limit.

    Raises:
        ValueError: naming the field, the value, what is allowed, and the nearest number.
    """
    if value is None and null:
        return None
    number: object = value
    if isinstance(value, str):
        word = value.strip()
        if auto and word.lower() == "auto":
            return "auto"
        if levels and word.upper() in PrefixLevel.__members__:
            return PrefixLevel(word.upper())
        number = int(word) if _WHOLE.fullmatch(word) else None
    near = ""
    # Not `isfinite` for an int, which may be too long for a float.
    if isinstance(number, int | float) and not isinstance(number, bool) and -math.inf < number < math.inf:
        fitting = max(least, round(number if most is None else min(number, most)))
        if fitting == number:
            return fitting
        near = f"; the nearest is {fitting}"
    allowed = ", or ".join(_allowed(levels=levels, auto=auto, null=null, least=least, most=most))
    raise ValueError(f"{shown(name, value)} is not allowed: use {allowed}{near}")


def _allowed(*, levels: bool, auto: bool, null: bool, least: int, most: int | None) -> list[str]:
    """What `value_of` takes, in words."""
    numbers = f"a whole number of {least} or more" if most is None else f"a whole number from {least} to {most}"
    return [*(["LOW, MEDIUM, HIGH"] * levels), numbers, *(["auto"] * auto), *(["null"] * null)]


@dataclass(frozen=True, slots=True)
class Number:
    """`value_of` as a validator of pydantic's. The attributes are its arguments."""

    levels: bool = False
    auto: bool = False
    null: bool = False
    least: int = 1
    most: int | None = None

    @property
    def allowed(self) -> list[str]:
        """What it takes, in words."""
        return _allowed(**asdict(self))

    def __call__(self, value: Any, info: ValidationInfo) -> Any:
        """The value of a field."""
        return value_of(info.field_name or "value", value, **asdict(self))


def number(
    *, levels: bool = False, auto: bool = False, null: bool = False, least: int = 1, most: int | None = None
) -> BeforeValidator:
    """`value_of` for a field: `Annotated[int | Auto, number(auto=True)]`."""
    return BeforeValidator(Number(levels=levels, auto=auto, null=null, least=least, most=most))


def _plain(value: PrefixLevel | int | str) -> int | str:
    return value.value if isinstance(value, PrefixLevel) else value


# Plain text, not Python's enums and paths, in the YAML files that NAT writes.
LevelOrNumber = Annotated[
    PrefixLevel | int | Auto,
    number(levels=True, auto=True, most=U32_MAX),
    PlainSerializer(_plain, return_type=int | str),
]
"""A level, a number, or `auto`."""

File = Annotated[Path, PlainSerializer(str, return_type=str)]
"""A file or folder."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A time above 0 (s)."""
