"""Mooncake's trace format: JSON lines, a request each, whose KV blocks are named by ids.

`timestamp` (ms), `input_length` and `output_length` (tokens), `hash_ids`: an id for each block of 512 tokens, which
stands for the block and all before it (https://github.com/kvcache-ai/Mooncake, Qin et al., "Mooncake", FAST 2025). It
does not say which requests are of one conversation: one that begins with all whole blocks of an earlier one continues
it. Nor does it say how long an answer took, so pauses between calls have the earlier answer in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from nat_dynamo_plugin.recording.rows import RecordingError
from nat_dynamo_plugin.recording.traces.shape import SHORTEST_S, Shape

BLOCK_TOKENS = 512


class Request(msgspec.Struct, frozen=True):
    """A line."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


@dataclass(slots=True)
class _Node:
    """A prefix: what follows it, and the last request whose whole blocks it is."""

    after: dict[int, _Node] = field(default_factory=dict)
    last: int | None = None


def mooncake(lines: Iterable[bytes], place: str) -> list[Shape]:
    """The calls of a trace.

    Args:
        lines: of the file.
        place: its name, for errors.

    Raises:
        RecordingError: a line is no request.
    """
    decode = msgspec.json.Decoder(Request).decode
    requests = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                requests.append(decode(line))
            except msgspec.DecodeError as error:
                raise RecordingError(f"{place}, line {number}: {error}") from error
    return shapes(sorted(requests, key=lambda request: request.timestamp))


def shapes(requests: Sequence[Request]) -> list[Shape]:
    """The calls, each with the conversation that it belongs to.

    Args:
        requests: in order of time.
    """
    root = _Node()
    names: list[str] = []
    began: dict[str, float] = {}
    found = []
    for number, request in enumerate(requests):
        name = _continued(root, requests, request, names) or f"c{number:05d}"
        # Two at the same moment come one after the other, for the second has the first one's answer in its prompt.
        at_s = max(request.timestamp / 1000.0, began.get(name, -1.0) + 2 * SHORTEST_S)
        began[name] = at_s
        names.append(name)
        blocks = tuple(f"b{block}" for block in request.hash_ids)
        found.append(Shape(name, at_s, 0.0, request.input_length, request.output_length, blocks, BLOCK_TOKENS))
        node = root
        for block in request.hash_ids[: request.input_length // BLOCK_TOKENS]:
            node = node.after.setdefault(block, _Node())
        node.last = number
    return found


def _continued(root: _Node, requests: Sequence[Request], request: Request, names: Sequence[str]) -> str | None:
    """The conversation of the longest earlier request of which all whole blocks are this one's beginning."""
    node, last = root, None
    for block in request.hash_ids:
        if block not in node.after:
            break
        node = node.after[block]
        if node.last is not None and requests[node.last].input_length < request.input_length:
            last = node.last
    return None if last is None else names[last]
