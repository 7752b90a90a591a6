"""JSON that says the same in another order."""

from __future__ import annotations

import random
from typing import Any


def shuffled(value: Any, draw: random.Random) -> Any:
    """A value with the members of its objects in any order."""
    if isinstance(value, dict):
        names = list(value)
        draw.shuffle(names)
        return {name: shuffled(value[name], draw) for name in names}
    return [shuffled(one, draw) for one in value] if isinstance(value, list) else value
