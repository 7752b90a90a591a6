"""Why a prompt that might have come out of the cache did not: the causes, in words, and what to do. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from nat_dynamo_plugin.cli.report.prompts import Change, Difference


class Advice(NamedTuple):
    """What is said of a cause.

    Attributes:
        name: of the cause, as a headline.
        do: what to move where, or what to set.
    """

    name: str
    do: str


class Served(Enum):
    """Causes that lie in how a call was served; its prompt had not changed, or nobody knows whether it had."""

    MOVED = "moved"
    OVERLAPPED = "overlapped"
    FORGOTTEN = "forgotten"
    COLD = "cold"
    UNKNOWN = "unknown"
    SHRANK = "shrank"


Cause = Change | Served

_OF_SERVING = {
    Served.MOVED: Advice(
        "Another worker served the next call",
        "The cache of the worker before was left. Let sessions stick (`nat dynamo doctor` names the router flag), or "
        "ask whether that worker was too busy: the map below shows hot spots.",
    ),
    Served.OVERLAPPED: Advice(
        "Asked while the call before was still under way",
        "What is being computed can not be reused yet. Let the first of several parallel calls answer before the "
        "others are made, if they share a long prompt.",
    ),
    Served.FORGOTTEN: Advice(
        "The same worker had forgotten the prompt",
        "Its KV cache is too small for the questions under way. Ask fewer at once (`admission`, or the evaluation's "
        "`max_concurrency`), give a worker more KV blocks, or make the pauses shorter in which tools run.",
    ),
    Served.COLD: Advice(
        "The first question of its kind on this worker",
        "Each worker computes the shared beginning once. It can not be avoided, only be made rarer: fewer, larger "
        "workers.",
    ),
    Served.UNKNOWN: Advice(
        "Less was cached than the call before had sent",
        "The same worker, or one nobody named: it had forgotten the prompt, or the prompt had changed. Run it once "
        "with `record: calls.jsonl`, and this report says which.",
    ),
    Served.SHRANK: Advice(
        "The prompt became shorter, and little of it was cached",
        "Its history was shortened, or it is another prompt in the same session. Run it once with `record: "
        "calls.jsonl`, and this report says where it differs.",
    ),
}

_OF_CHANGE = {
    Change.TOOLS_ORDER: Advice(
        "The tools come in another order", "Sort them by name before they are given to the model (`bind_tools`)."
    ),
    Change.TOOLS_SET: Advice(
        "Other tools are offered in the middle of a conversation",
        "Offer all of them from the first call on, and forbid what must not be called by `tool_choice` or in the last"
        " message.",
    ),
    Change.TOOL_CHANGED: Advice(
        "The definition of a tool changes",
        "Take out of its description what changes from call to call (a time, a list of files), and put that into the "
        "last message.",
    ),
    Change.SHORTENED: Advice(
        "The history was shortened",
        "All behind the gap is computed again. Shorten seldom and by much, at the end of a question rather than at "
        "each call, and keep the beginning.",
    ),
    Change.REPLACED: Advice(
        "A part of the history was replaced",
        "All behind it is computed again. Summarise seldom and by much, not at each call, or put the summary at the "
        "end.",
    ),
    Change.INSERTED: Advice(
        "Messages were put in before others",
        "Add them at the end: what stands behind what is new is computed again.",
    ),
    Change.REWRITTEN: Advice(
        "The history was rewritten", "Keep what was sent as it was, and add what is new at the end."
    ),
    Change.OTHER_PROMPT: Advice(
        "Another prompt in the same session",
        "The agent has several prompts for one conversation. Let them begin with the same system message and tools, "
        "and put what differs into the last message.",
    ),
}

_TRUNCATE = "Cut a long tool's answer when it comes in, before it is sent for the first time, and keep what was sent."


def headline(cause: Cause, found: Difference | None = None) -> str:
    """The cause in a few words, as `A clock in the system message`."""
    if isinstance(cause, Served):
        return _OF_SERVING[cause].name
    if cause is Change.VARIABLE and found is not None:
        what = "Text that changes" if found.what == "text" else found.what[0].upper() + found.what[1:]
        return f"{what} in {_place(found)}"
    return _OF_CHANGE[cause].name


def advice(cause: Cause, found: Difference | None = None) -> str:
    """What to move where, or what to set."""
    if isinstance(cause, Served):
        return _OF_SERVING[cause].do
    if cause is not Change.VARIABLE or found is None:
        return _OF_CHANGE[cause].do
    if found.what == "a text that was cut":
        return _TRUNCATE
    moved = f"Move it out of {_place(found)} to the end of the last message, or let a tool tell it"
    rounded = ", or write it less exactly (the day, not the second)" if found.what == "a clock" else ""
    return f"{moved}{rounded}: everything behind it is computed again."


def _place(found: Difference) -> str:
    """Where a text changes, without the message's number, so that equal causes are one."""
    if found.where.endswith(")"):
        return f"a message of the history {found.where[found.where.index('(') :]}"
    return f"the {found.where}"
