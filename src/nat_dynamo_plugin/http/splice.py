"""Put members into the bytes of a JSON body without parsing it, or without touching what is there. Pure."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import msgspec

from nat_dynamo_plugin.dialects.said import Edit, added_items
from nat_dynamo_plugin.question.once import warn_once

logger = logging.getLogger(__name__)

COPY_LIMIT_BYTES = 65_536
"""Bodies up to this size are joined with our members: one write more to the socket costs more than the copy."""

_OBJECT_START = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*([\"}])")
_OBJECT_END = re.compile(rb"\}[ \t\r\n]*$")
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN_NAME = re.compile(r"[ !#-\[\]-~]+")  # what every JSON encoder writes as it is

_encode = msgspec.json.encode


class Spliced(NamedTuple):
    """A body with our members in it.

    Attributes:
        parts: the body, to be sent one part after the other.
        sent: what stands in the body under the names of our members, after the merge with the caller's.
        adds: whether anything of ours is in it. If not, the body is the caller's.
    """

    parts: tuple[bytes | memoryview, ...]
    sent: Mapping[str, Any]
    adds: bool


@lru_cache(maxsize=64)
def _quoted(name: str) -> bytes | None:
    """A name as it stands in JSON; `None` for one that has several forms."""
    return b'"%b"' % name.encode() if _PLAIN_NAME.fullmatch(name) else None


def may_name(body: bytes, name: str) -> bool:
    """Whether a name in quotes stands anywhere in the body, be it as a key or in some text; true if it has many forms.

    Searched from the end, because CPython's `rfind` takes 0.17 ms a MB and its `find` 0.45 ms. A key written with
    escapes (`"\\u006evext"`) is not found, as no JSON encoder escapes ASCII letters.
    """
    quoted = _quoted(name)
    return quoted is None or body.rfind(quoted) >= 0


def spliced(body: bytes, members: Mapping[str, Any], encoded: bytes | None = None) -> Spliced | None:
    """The body with our members in it; `None` to send it as it is, because it is no JSON object.

    Our members go in behind the opening brace. A body that may have members of these names of its caller's is parsed
    for them: objects are merged, lists joined, and otherwise the caller wins. All bytes of the caller's stay as they
    are, in their order, so that no number, duplicate or escape changes.

    Args:
        body: the caller's.
        members: ours, by name.
        encoded: the members as a JSON object, if somebody has it already (`Said.encoded`).
    """
    if body.startswith(b'{"') and body.endswith(b"}"):
        rest = 1
    else:
        start = _OBJECT_START.match(body)
        if start is None or _OBJECT_END.search(body, max(0, len(body) - 64)) is None:
            return None
        rest = start.start(1)
    if not members:
        return Spliced((body,), members, False)
    for name in members:
        if may_name(body, name):
            return _merged_into(body, members)
    head = (encoded or _encode(members))[:-1]
    if body[rest] == 0x22:  # a member follows
        head += b","
    if len(body) <= COPY_LIMIT_BYTES:
        return Spliced((b"".join((head, memoryview(body)[rest:])),), members, True)
    return Spliced((head, memoryview(body)[rest:]), members, True)


def edited(body: bytes, edit: Edit) -> bytes | None:
    """The body after an edit of the parsed object; `None` if it is no JSON object, or if the edit fails.

    What the edit leaves as and where it was keeps its bytes; so no number, duplicate or escape changes there.
    """
    try:
        text = body.decode("utf-8")
        before = _scan(text, _skip(text, 0))[0]
        after: dict[str, Any] = json.loads(text, strict=False)
        if not isinstance(after, dict):
            return None
    except _NO_JSON:
        return None
    try:
        edit(after)
        return _rewritten(text, _skip(text, 0), len(text), before, after).encode()
    except Exception as error:
        warn_once(logger, ("edit", repr(edit)), "%r of a body failed; calls go on without it", edit, error=error)
        return None


class _Object:
    """Where the members of a JSON object stand in a text, and what they are.

    Raises:
        one of `_NO_JSON`: if no JSON object begins there.
    """

    __slots__ = ("end", "spans", "start")

    def __init__(self, text: str, start: int) -> None:
        if text[start] != "{":
            raise ValueError("no object")
        self.start = start
        self.spans: dict[str, tuple[int, int, Any]] = {}
        """Start and end of a member's value, and the value; of several of one name the last, which is what counts."""
        at = _skip(text, start + 1)
        while text[at] != "}":
            if self.spans:
                at = _skip(text, _expect(text, at, ","))
            name, at = scanstring(text, _expect(text, at, '"'), False)
            at = _skip(text, _expect(text, _skip(text, at), ":"))
            value, end = _scan(text, at)
            self.spans[name] = (at, end, value)
            at = _skip(text, end)
        self.end = at + 1
        """Behind the closing brace."""


_scan = json.JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined]
_NO_JSON = (ValueError, IndexError, StopIteration, RecursionError)


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _expect(text: str, at: int, character: str) -> int:
    if text[at] != character:
        raise ValueError(f"{text[at]!r} where {character!r} should be")
    return at + 1


def _merged_into(body: bytes, members: Mapping[str, Any]) -> Spliced | None:
    inserts: list[tuple[int, bytes]] = []
    try:
        text = body.decode("utf-8")
        found = _Object(text, _skip(text, 0))
        if _skip(text, found.end) != len(text):
            return None
        whole = _merge(text, found, members, inserts)
    except _NO_JSON:
        return None
    sent = {name: whole[name] for name in members}
    if not inserts:
        return Spliced((body,), sent, False)
    parts, at = [], 0
    for place, added in sorted(inserts):
        parts += [text[at:place].encode(), added]
        at = place
    return Spliced((b"".join((*parts, text[at:].encode())),), sent, True)


def _merge(text: str, callers: _Object, ours: Mapping[str, Any], inserts: list[tuple[int, bytes]]) -> dict[str, Any]:
    """What the object is after the merge; what has to go into the text, and where, is added to `inserts`."""
    together = {name: value for name, (_, _, value) in callers.spans.items()}
    missing = {}
    for name, value in ours.items():
        if name not in together:
            missing[name] = together[name] = value
            continue
        start, end, theirs = callers.spans[name]
        if isinstance(value, Mapping) and isinstance(theirs, dict):
            together[name] = _merge(text, _Object(text, start), value, inserts)
        elif isinstance(value, list) and isinstance(theirs, list) and (more := added_items(value, theirs)):
            together[name] = [*theirs, *more]
            inserts.append((end - 1, (b"," if theirs else b"") + _encode(more)[1:-1]))
    if missing:
        inserts.append((callers.start + 1, _encode(missing)[1:-1] + (b"," if callers.spans else b"")))
    return together


def _rewritten(text: str, start: int, end: int, before: Any, after: Any) -> str:
    """The JSON of a value that was `before`, in `text` from `start` to `end`, and is `after` now."""
    if _same(before, after):
        return text[start:end]
    if isinstance(before, dict) and isinstance(after, dict):
        spans = _Object(text, start).spans
        members = (
            f"{_dump(name)}:{_rewritten(text, *spans[name], value) if name in spans else _dump(value)}"
            for name, value in after.items()
        )
        return f"{{{','.join(members)}}}"
    if isinstance(before, list) and isinstance(after, list):
        places = _items(text, start)
        items = (_rewritten(text, *place, value) for place, value in zip(places, after, strict=False))
        return f"[{','.join((*items, *map(_dump, after[len(places) :])))}]"
    return _dump(after)


def _items(text: str, start: int) -> list[tuple[int, int, Any]]:
    """Start and end of each item of a JSON array that is known to be one, and the item."""
    items: list[tuple[int, int, Any]] = []
    at = _skip(text, start + 1)
    while text[at] != "]":
        if items:
            at = _skip(text, _expect(text, at, ","))
        value, end = _scan(text, at)
        items.append((at, end, value))
        at = _skip(text, end)
    return items


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all through: `1`, `1.0` and `true` are three things in JSON."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates have no UTF-8, only an escape
        return json.dumps(value, separators=(",", ":"))
    return text
