"""Answers as servers give them, and streams of events, to be changed."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from .examples import changed_bytes, misspelt, odd_text, odd_value, places

_BASE: dict[str, Any] = {"id": "c", "created": 1, "model": "m"}
_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 8},
}
_NVEXT = {"worker_id": {"decode_worker_id": 7}, "timing": {"ttft_ms": 3.5, "total_time_ms": 9.0, "kv_hit_rate": 0.5}}
_CALL = {"index": 0, "id": "t", "type": "function", "function": {"name": "shut", "arguments": '{"valve": 3}'}}
WHOLE: tuple[dict[str, Any], ...] = (
    {
        **_BASE,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": _USAGE,
        "nvext": _NVEXT,
    },
    {
        **_BASE,
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "tool_calls": [_CALL]}, "finish_reason": "tool_calls"},
            {"index": 1, "message": {"role": "assistant", "refusal": "No."}, "finish_reason": "length"},
        ],
        "usage": _USAGE,
    },
)
ERRORS: tuple[dict[str, Any], ...] = (
    {"error": {"message": "The boiler is cold", "type": "boiler", "param": "valve", "code": None}},
    {"message": "The boiler is cold", "type": "Boiler", "code": 503},
    {"detail": [{"loc": ["body", "valve"], "msg": "is shut"}]},
    {"error": "The boiler is cold"},
)
_TEXTS = ("The", " valve", " is", " shut: é", "日本", "😀", 'a "quote" \\', "\n", "\u2028", "")


def changed(dice: random.Random, value: dict[str, Any]) -> Any:
    """A JSON value with a few members renamed, lost or replaced."""
    value = copy.deepcopy(value)
    for _ in range(dice.randrange(1, 4)):
        if not (found := places(value)):
            return odd_value(dice)
        container, key = dice.choice(found)
        match dice.randrange(4):
            case 0 if isinstance(container, dict):
                container[misspelt(dice, str(key))] = container.pop(key)
            case 1:
                del container[key]
            case _:
                container[key] = odd_value(dice)
    return value


def as_json(dice: random.Random, value: Any) -> bytes:
    """A value written as JSON; a lone surrogate, which UTF-8 has not, as bytes that are none."""
    return json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def answer(dice: random.Random) -> bytes:
    """A body near a right one, or any bytes."""
    match dice.randrange(8):
        case 0:
            return as_json(dice, dice.choice((*WHOLE, *ERRORS)))
        case 1:
            return dice.randbytes(dice.randrange(200))
        case 2:
            return as_json(dice, odd_value(dice))
        case 3:
            return b"[" * dice.choice((1, 500, 100_000)) + as_json(dice, odd_text(dice))
        case 4 | 5:
            return changed_bytes(dice, as_json(dice, dice.choice((*WHOLE, *ERRORS))))
        case _:
            return as_json(dice, changed(dice, dice.choice((*WHOLE, *ERRORS))))


def _chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {**_BASE, "object": "chat.completion.chunk", "choices": [choice], **more}


def events(dice: random.Random) -> list[Any]:
    """The events of a stream that is whole."""
    texts = [_chunk({"content": dice.choice(_TEXTS)}) for _ in range(dice.randrange(6))]
    calls = [
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": dice.choice(_TEXTS)}}]}, index=1)
        for _ in range(dice.choice((0, 0, 3)))
    ]
    made = [_chunk({"role": "assistant", "content": ""}), *texts, *calls, _chunk({}, dice.choice(("stop", "length")))]
    made += [_chunk({}, "tool_calls", 1)] if calls else []
    made += [{**_BASE, "choices": [], "usage": _USAGE, "nvext": _NVEXT}] if dice.random() < 0.5 else []
    return [*made, "[DONE]"]


def stream(dice: random.Random, said: list[Any], *, fields: bool = True) -> bytes:
    """Events as bytes: with any line end, comments and a byte order mark.

    Args:
        dice: draws.
        said: the events; a text is written as it is.
        fields: whether lines of other fields may come between (`id`, `retry`, `event`). OpenAI's library 2.54 takes an
            empty line somewhere behind one for an event, and raises `JSONDecodeError` for that.
    """
    end = dice.choice((b"\n", b"\n", b"\r\n", b"\r"))
    made = [b"\xef\xbb\xbf"] if dice.random() < 0.1 else []
    for event in said:
        data = event.encode("utf-8", "surrogatepass") if isinstance(event, str) else as_json(dice, event)
        lines = [b":" + dice.choice((b"", b" keep-alive", "ä".encode()))] if dice.random() < 0.1 else []
        more = (b"event: message", b"id: 3", b"retry: 5", b"event:")
        lines += [dice.choice(more)] if fields and dice.random() < 0.1 else []
        lines += [dice.choice((b"data: ", b"data: ", b"data:")) + data, b"", *([b""] * dice.choice((0, 0, 0, 1)))]
        made += [line + end for line in lines]
    return b"".join(made)


def broken_stream(dice: random.Random, *, fields: bool = True) -> bytes:
    """A stream near a right one; see `stream`."""
    said = events(dice)
    match dice.randrange(6):
        case 0:
            return changed_bytes(dice, stream(dice, said, fields=fields))
        case 1:
            del said[dice.randrange(len(said)) :]
        case 2:
            said.insert(dice.randrange(len(said)), dice.choice(ERRORS))
        case 3:
            said.insert(dice.randrange(len(said)), odd_value(dice))
        case 4:
            at = dice.randrange(len(said))
            said[at] = said[at] if isinstance(said[at], str) else changed(dice, said[at])
        case _:
            said.insert(dice.randrange(len(said)), odd_text(dice))
    return stream(dice, said, fields=fields)


def cut(dice: random.Random, data: bytes) -> list[bytes]:
    """The bytes in pieces."""
    size = dice.choice((1, 3, 20, 200))
    if size == 1:
        return [data[at : at + 1] for at in range(len(data))]
    pieces, at = [], 0
    while at < len(data):
        length = dice.randrange(1, 2 * size)
        pieces.append(data[at : at + length])
        at += length
    return pieces
