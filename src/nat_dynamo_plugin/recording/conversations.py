"""Finds the recorded call with the conversation at hand, and says where the nearest one differs. Pure."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nat_dynamo_plugin.recording.rows import RecordedCall, redactor

_AROUND = 40
"""Characters of a text that are shown from where it differs."""


class NotRecorded(ValueError):
    """No recorded call has this conversation; the message says where the nearest one differs."""


def canonical(message: Any) -> str:
    """A message without what differs from run to run: ids of tool calls, spelling of JSON, empty fields."""
    if not isinstance(message, dict):
        return json.dumps(message, sort_keys=True)
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text")) for part in content)
    kept: dict[str, Any] = {"role": message.get("role"), "content": content or ""}
    calls = message.get("tool_calls") or ()
    if calls:
        kept["tool_calls"] = [_function(call) for call in calls]
    if message.get("function_call"):
        kept["function_call"] = message["function_call"]
    return json.dumps(kept, sort_keys=True, ensure_ascii=False)


def _function(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    with suppress(ValueError):  # a model may write what is no JSON
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"name": function.get("name"), "arguments": arguments}


def _digests(messages: Sequence[str]) -> list[bytes]:
    """For each beginning of a conversation, from none to all of its messages, what tells it from others."""
    digest = hashlib.blake2b(digest_size=16)
    found = [digest.digest()]
    for message in messages:
        digest.update(message.encode("utf-8", "surrogatepass") + b"\0")
        found.append(digest.digest())
    return found


def _in_common(one: str, other: str) -> int:
    """Characters at the beginning that are the same."""
    pairs = zip(one, other, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class Conversations:
    """The conversations of a recording.

    One that was recorded several times gives its answers in the order in which they were given; the last one serves
    all further calls.

    Args:
        rows: the calls.
        redact: the rules by which the recording's texts were redacted.
        source: named in errors.
    """

    def __init__(self, rows: Sequence[RecordedCall], redact: Sequence[str] = (), source: str = "the recording") -> None:
        self._source = source
        self._redact = redactor(redact)
        self._texts = [[canonical(message) for message in row.messages] for row in rows]
        self._questions = [row.question for row in rows]
        self._waiting: dict[bytes, list[int]] = {}
        self._beginnings: dict[bytes, list[int]] = {}
        self._lock = threading.Lock()
        for number, texts in enumerate(self._texts):
            digests = _digests(texts)
            self._waiting.setdefault(digests[-1], []).append(number)
            for digest in digests:
                self._beginnings.setdefault(digest, []).append(number)

    def find(self, messages: Sequence[Any]) -> int:
        """The number of the recorded call, from 0, with these messages.

        Raises:
            NotRecorded: there is none.
        """
        texts = [canonical(message) for message in self._redact(list(messages))]
        digests = _digests(texts)
        with self._lock:
            waiting = self._waiting.get(digests[-1])
            if waiting:
                return waiting.pop(0) if len(waiting) > 1 else waiting[0]
        raise NotRecorded(self._difference(texts, digests))

    def _difference(self, texts: Sequence[str], digests: Sequence[bytes]) -> str:
        same = max(k for k, digest in enumerate(digests) if digest in self._beginnings)
        number, at = self._nearest(texts, same, self._beginnings[digests[same]])
        recorded = self._texts[number]
        where = f"{self._source} has no call with this conversation; the nearest is call {number + 1} of the recording"
        where += f" (question {self._questions[number]})"
        if same == len(texts):
            return f"{where}, which has {len(recorded) - same} messages more"
        if same == len(recorded):
            return f"{where}, which ends before message {same + 1}: {texts[same][: 2 * _AROUND]}"
        ours, theirs = texts[same], recorded[same]
        begin = max(0, at - _AROUND // 2)
        return (
            f"{where}: message {same + 1} differs from character {at + 1} on: recorded "
            f"{theirs[begin : at + _AROUND]!r}, now {ours[begin : at + _AROUND]!r}"
        )

    def _nearest(self, texts: Sequence[str], same: int, among: Sequence[int]) -> tuple[int, int]:
        """Of calls that begin with the same messages the one whose next is most alike, and how much of that is."""

        def alike(number: int) -> tuple[int, int]:
            recorded = self._texts[number]
            if len(recorded) <= same:
                return -1, 0
            return _in_common(texts[same], recorded[same]) if same < len(texts) else 0, -len(recorded)

        best = max(among, key=alike)
        return best, alike(best)[0]
