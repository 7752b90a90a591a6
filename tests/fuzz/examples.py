"""Random examples, each of a seed of its own: `FUZZ_EXAMPLES=100000 make fuzz` for many, `FUZZ_SEED` for others.

A seeded random generator and not hypothesis, which takes some ms for an example and so an hour for what is minutes
here; what is lost is the shrinking, so examples are small.
"""

from __future__ import annotations

import os
import random
import string
from collections.abc import Iterator
from typing import Any

COUNT = int(os.environ.get("FUZZ_EXAMPLES", "300"))
SEED = os.environ.get("FUZZ_SEED", "0")

ODD_TEXTS = (
    "", " ", "\n", "\x00", "x", "null", "true", "nan", "1", "-1", "1e999", "LOW", "auto", "é", "日本", "\ud800", "😀",
    "{uuid}", "{", "{0}", "%s", "${HOME}", "env:", "file:", "file:/", "env:NO_SUCH_VARIABLE", "/", "~", "~nobody/x",
    "http://", "http://[", "http://h:99999", "a" * 5000, "[DONE]", "data: x", "\r\n\r\n",
)  # fmt: skip


def examples() -> Iterator[tuple[str, random.Random]]:
    """The examples: what names one, and what draws it."""
    for number in range(COUNT):
        name = f"{SEED}/{number}"
        yield name, random.Random(name)


def odd_value(dice: random.Random, depth: int = 0) -> Any:
    """A value of any JSON type, mostly at an edge of it."""
    kind = dice.randrange(12 if depth < 3 else 9)
    if kind < 3:
        return dice.choice(ODD_TEXTS)
    if kind < 5:
        return dice.choice((0, 1, -1, 2, 50, 2**31, 2**63, 2**64, 10**400, -(10**30)))
    if kind < 7:
        return dice.choice((0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")))
    if kind < 8:
        return dice.choice((None, True, False))
    if kind < 9:
        return "".join(dice.choices(string.printable, k=dice.randrange(12)))
    if kind < 11:
        return [odd_value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {odd_text(dice): odd_value(dice, depth + 1) for _ in range(dice.randrange(4))}


def odd_text(dice: random.Random) -> str:
    """A text, mostly at an edge."""
    return dice.choice(ODD_TEXTS)


def misspelt(dice: random.Random, name: str) -> str:
    """A name with a letter lost, doubled, changed or swapped."""
    at = dice.randrange(max(1, len(name)))
    letter = dice.choice(string.ascii_letters + "_- é")
    return dice.choice(
        (
            name[:at] + name[at + 1 :],
            name[:at] + letter + name[at:],
            name[:at] + letter + name[at + 1 :],
            name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :],
            name.upper(),
            name.replace("_", "-"),
        )
    )


Place = tuple[Any, Any]
"""A container and the key or index of a value in it."""


def places(value: Any) -> list[Place]:
    """Where the values in a JSON value are."""
    found: list[Place] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        found += places(inner)
    return found


def changed_bytes(dice: random.Random, data: bytes) -> bytes:
    """Bytes with some lost, changed, doubled or put in."""
    for _ in range(dice.randrange(1, 4)):
        at, length = dice.randrange(len(data) + 1), dice.randrange(1, 12)
        put = bytes(dice.randrange(256) for _ in range(dice.randrange(4)))
        match dice.randrange(5):
            case 0:
                data = data[:at] + data[at + length :]
            case 1:
                data = data[:at] + put + data[at:]
            case 2:
                data = data[:at] + put + data[at + len(put) :]
            case 3:
                data = data[: at + length] + data[at:]
            case _:
                data = data[:at]
    return data
