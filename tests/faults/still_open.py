"""Cells of the matrix that are not as they should be yet, and so are not run; the table says **no** there."""

from __future__ import annotations

UNARY = ("LangChain async", "LangChain sync", "OpenAI async", "OpenAI sync")
STREAMED = tuple(f"{column} stream" for column in UNARY)
ALL = (*UNARY, *STREAMED)

OPEN: dict[str, tuple[str, ...]] = {
    "a JSON answer for a stream": STREAMED,
    "an event stream": UNARY,
    "garbage for a chunk's size": (
        "LangChain async stream",
        "OpenAI async stream",
    ),
    "gzip that is none": STREAMED,
    "gzip, cut": STREAMED,
    "no event at all": STREAMED,
    "unknown content-encoding": ALL,
}
"""Faults, and the columns that are open."""
