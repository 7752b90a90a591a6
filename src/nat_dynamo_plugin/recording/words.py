"""Text of a given length that says nothing, for load without content. Pure.

Two texts of the same key begin alike, so prompts that shared a prefix share one again; texts of different keys differ
from their first words on.
"""

from __future__ import annotations

import random

_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city name team minute idea body back face level office door health "
    "person art war history party result change morning reason research girl guy moment air teacher force education"
)
"""Common words, most of which are one token in any model's vocabulary."""
_WORDS = _TEXT.split()


def words(key: str, count: int) -> str:
    """A text of so many words, the same for the same key.

    Args:
        key: what it stands for.
        count: words, at least 1.
    """
    return " ".join(random.Random(key).choices(_WORDS, k=max(1, count)))
