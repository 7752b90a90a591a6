"""Conversations as clients send them, for tests."""

from __future__ import annotations

import json
from typing import Any

from nat_dynamo_plugin.context.history import Asked, read


def said(role: str, text: str = "", **fields: Any) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": text, **fields}


def step(number: int, calls: int = 1, size: int = 40) -> list[dict[str, Any]]:
    """An answer that calls tools, and what they give."""
    ids = [f"call_{number}_{each}" for each in range(calls)]
    wanted = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    results = [said("tool", f"{one} gives " + "x" * size, tool_call_id=one) for one in ids]
    return [said("assistant", tool_calls=wanted), *results]


def body(messages: list[dict[str, Any]], **fields: Any) -> bytes:
    """A request's."""
    return json.dumps({"model": "m", **fields, "messages": messages}, separators=(",", ":")).encode()


def asked(messages: list[dict[str, Any]], **fields: Any) -> Asked:
    """The same, read."""
    found = read(body(messages, **fields))
    assert found is not None
    return found
