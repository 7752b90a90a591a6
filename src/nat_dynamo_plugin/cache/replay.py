"""A streamed answer as one, and one as a stream: `assemble(replay(x)) == x`. No I/O in here.

Protocol: OpenAI's chat completions. What is not known is kept: text that comes in pieces is joined, lists are extended,
of anything else the last counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import Any
from uuid import uuid4

import msgspec

_ONCE = frozenset(("role", "id", "type", "name", "index", "object", "model", "created", "finish_reason"))
"""Members that are said as a whole, though they are text."""
_OF_ITS_TIME = frozenset(("nvext",))
"""Members that tell of one execution (worker, timing), and nothing of an answer given again."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def assemble(events: Iterable[bytes]) -> dict[str, Any] | None:
    """The answer that a stream says, as it would have come in one piece; `None` if it is no chat completion.

    Args:
        events: the data of its events, with or without `[DONE]`.
    """
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    try:
        for event in events:
            if event.strip() == b"[DONE]":
                break
            chunk = _decode(event)
            for name, value in chunk.items():
                if name not in ("choices", "object") and value is not None:
                    whole.setdefault(name, value) if name in _ONCE else whole.__setitem__(name, value)
            for part in chunk.get("choices") or ():
                index = part.get("index", 0)
                _merge(choices.setdefault(index, {"index": index, "message": {}}), part)
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        return None
    if not choices:
        return None
    whole["object"] = "chat.completion"
    whole["choices"] = [choices[index] for index in sorted(choices)]
    return normal(whole)


def _merge(choice: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a part to its choice."""
    for name, value in part.items():
        if name == "delta":
            _merge_delta(choice["message"], value or {})
        elif name != "index":
            choice[name] = _joined(choice.get(name), value, name)


def _merge_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.get("tool_calls") or []
            for position, one in enumerate(value or ()):
                place = one.get("index", position)
                while len(calls) <= place < 4096:
                    calls.append({})
                calls[place] = _joined(calls[place], {key: said for key, said in one.items() if key != "index"}, name)
            if value is not None or "tool_calls" not in message:
                message["tool_calls"] = calls if value is not None else None
        else:
            message[name] = _joined(message.get(name), value, name)


def _joined(old: Any, new: Any, name: str) -> Any:
    """What is known with what has come."""
    if old is None or new is None:
        return new if old is None else old
    if isinstance(old, str) and isinstance(new, str):
        return (new or old) if name in _ONCE else old + new
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _joined(old.get(key), value, key) for key, value in new.items()}}
    return new


def normal(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as it is kept: without what told of its execution, and with what both forms of it need."""
    kept = {name: value for name, value in answer.items() if name not in _OF_ITS_TIME}
    if kept.get("usage") is None:
        kept.pop("usage", None)
    kept["choices"] = [_normal_choice(choice, position) for position, choice in enumerate(kept["choices"])]
    return kept


def _normal_choice(choice: dict[str, Any], position: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, **choice["message"]}
    if isinstance(message.get("tool_calls"), list):
        # A stream's calls have numbers, which are their places in the list.
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call
            for call in message["tool_calls"]
        ]
    return {**choice, "index": choice.get("index", position), "message": message}


def fresh(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with an id and a time of its own. Ids of tool calls stay, for the next turn's key has them in it."""
    return {**answer, "id": f"chatcmpl-{uuid4().hex}", "created": int(time())}


def whole(answer: dict[str, Any]) -> bytes:
    """The answer in one piece."""
    return _encode(answer)


def replay(answer: dict[str, Any], *, usage: bool = True) -> bytes:
    """The answer as a stream of server-sent events.

    Args:
        answer: as `normal` has it.
        usage: whether its usage is said, in an event of its own behind the last choice.
    """
    head = {
        **{name: value for name, value in answer.items() if name not in ("choices", "usage")},
        "object": "chat.completion.chunk",
    }
    parts: list[dict[str, Any]] = []
    for choice in answer["choices"]:
        parts += _parts(choice)
    chunks: list[dict[str, Any]] = [{**head, "choices": [part]} for part in parts]
    if usage and answer.get("usage") is not None:
        chunks.append({**head, "choices": [], "usage": answer["usage"]})
    return b"".join(b"data: " + _encode(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def _parts(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """A choice in pieces, as servers send them: the role, what was thought, what was said, how it ended."""
    index, message = choice["index"], dict(choice["message"])
    # Null and empty members have nothing that could come later.
    first = {name: message.pop(name) for name in [*message] if name == "role" or not message[name]}
    calls = message.pop("tool_calls", None)
    said = sorted(message, key=lambda one: (one == "content", one))  # what was thought comes first
    deltas = [first, *({name: message[name]} for name in said)]
    if calls:
        deltas.append({"tool_calls": [{"index": k, **call} for k, call in enumerate(calls)]})
    parts: list[dict[str, Any]] = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    told = {name: value for name, value in choice.items() if name not in ("index", "message")}
    return [*parts, {"index": index, "delta": {}, **told}]
