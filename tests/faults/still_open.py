"""Cells of the matrix that are not as they should be yet, and so are not run; the table says **no** there."""

from __future__ import annotations

UNARY = ("LangChain async", "LangChain sync", "OpenAI async", "OpenAI sync")
STREAMED = tuple(f"{column} stream" for column in UNARY)
ALL = (*UNARY, *STREAMED)

OPEN: dict[str, tuple[str, ...]] = {
    "103 Early Hints first": (
        "LangChain sync",
        "LangChain sync stream",
        "OpenAI sync",
        "OpenAI sync stream",
    ),
    "503 whose body stops": (
        "LangChain sync",
        "LangChain sync stream",
        "OpenAI sync",
        "OpenAI sync stream",
    ),
    "a JSON answer for a stream": STREAMED,
    "a choice without a message": UNARY,
    "a message of a wrong type": UNARY,
    "an event stream": UNARY,
    "event: error with a comment, mid-way (Dynamo)": STREAMED,
    "garbage for a chunk's size": (
        "LangChain async stream",
        "OpenAI async stream",
    ),
    "gzip that is none": STREAMED,
    "gzip, cut": STREAMED,
    "no event at all": STREAMED,
    "silence": (
        "LangChain sync",
        "LangChain sync stream",
        "OpenAI sync",
        "OpenAI sync stream",
    ),
    "silence after the headers": (
        "LangChain sync",
        "LangChain sync stream",
        "OpenAI sync",
        "OpenAI sync stream",
    ),
    "silence before the first token": (
        "LangChain sync stream",
        "OpenAI sync stream",
    ),
    "silence within the body": (
        "LangChain sync",
        "OpenAI sync",
    ),
    "silence within the headers": (
        "LangChain sync",
        "LangChain sync stream",
        "OpenAI sync",
        "OpenAI sync stream",
    ),
    "unknown content-encoding": ALL,
}
"""Faults, and the columns that are open."""
