"""Where two prompts begin to differ, and what it is that differs. Pure.

An engine reuses a prompt up to the first token that is another one than before: what stands behind is computed again,
however alike it is. So only the first difference counts, and where it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum

from nat_dynamo_plugin.recording.conversations import canonical
from nat_dynamo_plugin.recording.rows import RecordedCall

_BEFORE, _AFTER = 40, 60
"""Characters of a text that are shown before and after the place where it differs."""
_SAME_PROMPT = 0.5
"""From what likeness on two system messages count as one that has changed; below, they are two prompts."""
_WORDS = 400
_LEADS = frozenset({"system", "developer"})
TOOL = "tool definition"


class Change(Enum):
    """What kind of first difference two prompts have."""

    VARIABLE = "variable"
    """A message that has a part which is another one each time."""
    TOOLS_ORDER = "tools_order"
    TOOLS_SET = "tools_set"
    TOOL_CHANGED = "tool_changed"
    SHORTENED = "shortened"
    REPLACED = "replaced"
    INSERTED = "inserted"
    REWRITTEN = "rewritten"
    OTHER_PROMPT = "other_prompt"
    """No change of a prompt, but another one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt.

    Attributes:
        label: the role of a message, or `TOOL`.
        text: what tells it from others.
        size: characters in the prompt.
    """

    label: str
    text: str
    size: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """The pieces of a prompt in the order in which most chat templates write them: system messages, tools, the rest.

    Attributes:
        parts: all of them.
        lead: how many of them are there before the first message of the question: what questions may share.
    """

    parts: tuple[Part, ...]
    lead: int

    @classmethod
    def of(cls, row: RecordedCall) -> Prompt:
        """The prompt of a recorded call."""
        messages = [_part(message) for message in row.messages]
        head = next((n for n, part in enumerate(messages) if part.label not in _LEADS), len(messages))
        # A recording of an older version tells no sizes.
        shapes = row.tool_shapes if len(row.tool_shapes) == len(row.tools) else [(0, "")] * len(row.tools)
        tools = [
            Part(TOOL, f"{name} {digest}".strip(), size) for name, (size, digest) in zip(row.tools, shapes, strict=True)
        ]
        return cls((*messages[:head], *tools, *messages[head:]), head + len(tools))

    @property
    def size(self) -> int:
        """Characters in all."""
        return sum(part.size for part in self.parts)

    @property
    def lead_size(self) -> int:
        """Characters of what questions may share."""
        return sum(part.size for part in self.parts[: self.lead])

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that were offered, each with what tells it from one of the same name."""
        return tuple(part.text for part in self.parts if part.label == TOOL)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of a prompt from one before.

    Attributes:
        change: its kind.
        what: it in words: `a clock`, `2 messages were removed`.
        where: in which piece: `system message`, `message 4 (tool)`, `tools`.
        at: characters of that piece that are the same, 0 where whole pieces differ.
        kept: characters of the prompt that are the same.
        before: the text around the difference as it was.
        now: likewise, as it is.
    """

    change: Change
    what: str
    where: str
    at: int
    kept: int
    before: str = ""
    now: str = ""


def shared(before: Prompt, now: Prompt, limit: int | None = None) -> int:
    """How many pieces at the beginning are the same."""
    pairs = zip(before.parts[:limit], now.parts[:limit], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(before.parts[:limit]), len(now.parts[:limit])))


def difference(before: Prompt, now: Prompt, *, lead_only: bool = False) -> Difference | None:
    """The first difference, or `None`: one prompt is the beginning of the other.

    Args:
        before: the prompt that came first.
        now: the one that might have reused it.
        lead_only: look only at what questions may share.
    """
    was = before.parts[: before.lead] if lead_only else before.parts
    is_ = now.parts[: now.lead] if lead_only else now.parts
    k = shared(before, now, min(len(was), len(is_)))
    kept = sum(part.size for part in was[:k])
    if k == len(was) or k == len(is_):
        return _of_tools(before, now, kept) if lead_only and before.tools != now.tools else None
    if TOOL in (was[k].label, is_[k].label):
        return _of_tools(before, now, kept)
    return _of_messages(was, is_, k, kept, before)


def _of_tools(before: Prompt, now: Prompt, kept: int) -> Difference:
    was, is_ = before.tools, now.tools
    names_before, names_now = ([text.split()[0] for text in tools] for tools in (was, is_))
    if sorted(was) == sorted(is_):
        change, what = Change.TOOLS_ORDER, "the same tools in another order"
    elif sorted(names_before) == sorted(names_now):
        names = sorted({text.split()[0] for text in set(was) ^ set(is_)})
        change, what = Change.TOOL_CHANGED, f"the definition of {_listed(names)} is another one"
    else:
        gone = sorted(set(names_before) - set(names_now))
        come = sorted(set(names_now) - set(names_before))
        said = [f"{word} {_listed(names)}" for word, names in (("without", gone), ("with", come)) if names]
        change, what = Change.TOOLS_SET, f"other tools are offered: {', '.join(said)}" if said else "tools are repeated"
    first = next((n for n, (a, b) in enumerate(zip(names_before, names_now, strict=False)) if a != b), 0)
    return Difference(change, what, "tools", 0, kept, _listed(names_before[first:]), _listed(names_now[first:]))


def _of_messages(was: Sequence[Part], is_: Sequence[Part], k: int, kept: int, before: Prompt) -> Difference:
    where = _where(was, k, before)
    same_role = was[k].label == is_[k].label
    rest = was[k + 1 :]
    # What follows says that it is one message that changed; but all prompts of an agent have the same tools.
    if same_role and len(was) > max(before.lead, k + 1) and rest == is_[k + 1 : k + 1 + len(rest)]:
        return _of_text(was[k], is_[k], where, kept)
    shown = was[k].text[:100], is_[k].text[:100]
    removed, put = _moved(was, is_, k) if k >= before.lead else (0, 0)
    if removed and put:
        what = f"{_messages(removed)} replaced by {put}"
        return Difference(Change.REPLACED, what, where, 0, kept, *shown)
    if removed:
        return Difference(Change.SHORTENED, f"{_messages(removed)} removed", where, 0, kept, *shown)
    if put:
        return Difference(Change.INSERTED, f"{_messages(put)} put in", where, 0, kept, *shown)
    if same_role and _alike(was[k].text, is_[k].text):
        return _of_text(was[k], is_[k], where, kept)
    if k < before.lead:
        return Difference(Change.OTHER_PROMPT, "another prompt", where, 0, kept, *shown)
    return Difference(Change.REWRITTEN, "the messages are others from here on", where, 0, kept, *shown)


def _of_text(was: Part, is_: Part, where: str, kept: int) -> Difference:
    pairs = zip(was.text, is_.text, strict=False)
    at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(was.text), len(is_.text)))
    return Difference(
        Change.VARIABLE,
        changing(was.text, is_.text, at),
        where,
        at,
        kept + min(at, was.size),
        _around(was.text, at),
        _around(is_.text, at),
    )


def _moved(was: Sequence[Part], is_: Sequence[Part], k: int) -> tuple[int, int]:
    """How many pieces were taken out at `k` and put in there, such that the rest is as it was; 0 and 0: in no way.

    The rest is one piece at least.
    """
    for removed in range(len(was) - k):
        tail = was[k + removed :]
        for put in range(len(is_) - k - len(tail) + 1):
            if is_[k + put : k + put + len(tail)] == tail:
                return removed, put
    return 0, 0


_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAY = r"(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?"
_DATE = (
    rf"(?:{_DAY},? )?(?:\d{{4}}-\d\d-\d\d|\d{{1,2}}\.? {_MONTH},? \d{{4}}|{_MONTH} \d{{1,2}}(?:,? \d{{4}})?|"
    r"\d{1,2}[./]\d{1,2}[./]\d{2,4})"
)
_TIME = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_PATTERNS = [
    (name, re.compile(pattern))
    for name, pattern in (
        ("a clock", rf"(?:{_DATE},?(?: at)?[T ])?{_TIME}(?:Z|[+-]\d\d:?\d\d)?|\b1[5-9]\d{{8}}(?:\.\d+|\d{{3}})?\b"),
        ("a date", rf"{_DATE}|\b{_DAY}\b"),
        ("an id (UUID)", r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"),
        ("an id", r"\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"),
        ("a number", r"\d+(?:\.\d+)?"),
    )
]


def changing(before: str, now: str, at: int) -> str:
    """What stands in both texts where they begin to differ: `a clock`, `a date`, `an id`, `a number`, or `text`."""
    for name, pattern in _PATTERNS:
        if _covers(pattern, before, at) and _covers(pattern, now, at):
            return name
    if len(now) < len(before) / 2:
        return "a text that was cut"
    return "text"


def _covers(pattern: re.Pattern[str], text: str, at: int) -> bool:
    begin = max(0, at - 50)
    return any(begin + m.start() <= at <= begin + m.end() for m in pattern.finditer(text[begin : at + 80]))


def _alike(one: str, other: str) -> bool:
    """Whether two texts are one that has changed. Ends of long ones are left out."""
    a, b = one.split()[:_WORDS], other.split()[:_WORDS]
    return SequenceMatcher(None, a, b, autojunk=False).ratio() >= _SAME_PROMPT


def _part(message: object) -> Part:
    data = json.loads(canonical(message))
    if not isinstance(data, dict):
        return Part("message", str(data), len(str(data)))
    content = data.pop("content", "") or ""
    label = str(data.pop("role", None) or "message")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    if data:
        text = f"{text} {json.dumps(data, ensure_ascii=False, sort_keys=True)}".strip()
    return Part(label, text, len(text))


def _where(parts: Sequence[Part], k: int, prompt: Prompt) -> str:
    label = parts[k].label
    if k < prompt.lead:
        return f"{label} message"
    # As a reader counts the messages of a request: tools are none.
    return f"message {k + 1 - len(prompt.tools)} ({label})"


def _around(text: str, at: int) -> str:
    begin, end = max(0, at - _BEFORE), at + _AFTER
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")


def _messages(n: int) -> str:
    return "1 message was" if n == 1 else f"{n} messages were"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
