"""Which version of a prompt a call had: a short hash of what stays the same from call to call."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import msgspec

from nat_dynamo_plugin.http.call import Call
from nat_dynamo_plugin.http.flow import Flow, Send
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.telemetry.record import CallRecord

HASH_CHARS = 10
"""Hexadecimal digits of a version: two of a thousand different prompts are the same once in two million cases."""
_STABLE_ROLES = ("system", "developer")


class _Asked(msgspec.Struct):
    messages: list[msgspec.Raw] = []
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"")


_asked = msgspec.json.Decoder(_Asked).decode
_message = msgspec.json.Decoder(_Message).decode


class PromptVersionLayer:
    """Puts the prompt's version into the record when the call is over, so that no call waits for it.

    A name from `DynamoHints.scope(prompt_version=...)` stands in its place.
    """

    def flow(self, call: Call, send: Send) -> Flow:
        """Send."""
        scope = DynamoHints.current()
        if scope is not None and scope.prompt_version is not None:
            call.record.prompt_version = scope.prompt_version
        elif call.body.raw is not None:
            call.on_end(partial(_note, call.body.raw))
        return send(call)


def _note(body: bytes, record: CallRecord) -> None:
    record.prompt_version = version_of(body)


def version_of(body: bytes) -> str | None:
    """The version of a request's prompt: of its leading system messages (or instructions) and its tools.

    The same however a library writes the JSON: order of an object's members, blanks, escapes, and text as one part.
    `None` for a prompt with neither.
    """
    try:
        asked = _asked(body)
        leading = []
        for raw in asked.messages:
            message = _message(raw)
            if message.role not in _STABLE_ROLES:
                break
            leading.append(bytes(message.content))
        return _hashed(tuple(leading), bytes(asked.instructions), bytes(asked.tools))
    except msgspec.DecodeError:
        return None


@lru_cache(maxsize=128)
def _hashed(system: tuple[bytes, ...], instructions: bytes, tools: bytes) -> str | None:
    texts = [_text(_decoded(one)) for one in system if one]
    first, offered = _decoded(instructions), _decoded(tools)
    if not texts and not first and not offered:
        return None
    stable = json.dumps([texts, first or None, offered or None], sort_keys=True, ensure_ascii=False)
    return blake2b(stable.encode("utf-8", "surrogatepass"), digest_size=HASH_CHARS // 2).hexdigest()


def _decoded(raw: bytes) -> Any:
    return msgspec.json.decode(raw) if raw else None


def _text(content: Any) -> Any:
    """The text of a message; its parts as they are where one of them is no text."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content
