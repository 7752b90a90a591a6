"""Which calls are equal: the canonical form of a request, and its digest. No I/O in here.

A deny-list, never an allow-list: what is known to leave the answer as it is is left out, and a field that nobody knows
is in the key. Text is never touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

DROPPED = frozenset(
    (
        # How it is sent; an answer is said again in either form.
        *("stream", "stream_options"),
        # Who asks, and what it is accounted to.
        *("user", "safety_identifier", "metadata", "service_tier"),
        # What makes it fast.
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "prediction"),
    )
)
"""Members of a chat completion's request that do not change its answer."""

DROPPED_NVEXT = frozenset(("agent_hints", "extra_fields"))
"""Members of Dynamo's `nvext` that do not; others may be switches of decoding, and an annotation may name an answer."""

MARKS = ("cache_control", "prompt_cache_breakpoint", "cachePoint")
"""Prompt-cache marks, which messages, their parts and tools may have."""

NULLABLE = frozenset(
    (
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls", "presence_penalty"),
        *("reasoning_effort", "response_format", "seed", "stop", "temperature", "tool_choice", "tools"),
        *("top_logprobs", "top_p", "verbosity", "web_search_options", "store"),
    )
)
"""Members that may be null, which then means the same as leaving them out."""

PROMPT_HEADERS = (b"openai-", b"anthropic-", b"x-payload-", b"api-version", b"x-tenant-id")
"""Beginnings of the names of headers that choose an API's version, an account or what is prompted."""

_MARKED = tuple(f'"{mark}"'.encode() for mark in MARKS)
_EXACT = 2**53


def _number(text: str) -> Any:
    """A number of JSON with a fraction or an exponent: an integer if it is one, so that 0, 0.0 and 0e5 are equal."""
    value = float(text)
    if -_EXACT < value < _EXACT:
        return int(value) if value.is_integer() else value
    return {"\0number": text}  # more than a float holds, so as it is written


_decode = msgspec.json.Decoder(float_hook=_number).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read.

    Attributes:
        body: its members.
        canonical: its canonical form, of which the key is made.
    """

    body: dict[str, Any]
    canonical: bytes

    @property
    def streamed(self) -> bool:
        """Whether the answer is to be a stream."""
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether the answer is to say its usage: always, but for a stream that does not ask for it."""
        if not self.streamed:
            return True
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    @property
    def model(self) -> str:
        """The model asked for."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""


def read(body: bytes, ignore: Iterable[str] = ()) -> Asked | None:
    """A request's body in canonical form; `None` if it is no JSON object.

    Args:
        body: as the client made it.
        ignore: further members that are not to count.
    """
    try:
        asked = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(asked, dict):
        return None
    kept = {
        name: value
        for name, value in asked.items()
        if name not in DROPPED and name not in ignore and (value is not None or name not in NULLABLE)
    }
    nvext = kept.get("nvext")
    if isinstance(nvext, dict):
        kept["nvext"] = {name: value for name, value in nvext.items() if name not in DROPPED_NVEXT}
        if not kept["nvext"]:
            del kept["nvext"]
    if any(mark in body for mark in _MARKED):
        for name in ("messages", "tools"):
            if isinstance(kept.get(name), list):
                kept[name] = [_unmarked(one) for one in kept[name]]
    return Asked(asked, _encode(kept))


def _unmarked(thing: Any) -> Any:
    """A message, part or tool without its marks; what is deeper may have members of the same names that count."""
    if not isinstance(thing, dict):
        return thing
    kept = {name: value for name, value in thing.items() if name not in MARKS}
    if isinstance(kept.get("content"), list):
        # A part that is nothing but a mark goes as a whole.
        kept["content"] = [part for one in kept["content"] if (part := _unmarked(one)) != {} or one == {}]
    return kept


def key_of(canonical: bytes, method: str, url: str, scope: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The key: 64 hexadecimal digits of SHA-256.

    Args:
        canonical: `Asked.canonical`.
        method: the HTTP method.
        url: where the call goes, with its query.
        scope: whose answers these are; see `cache.scope`.
        headers: those that count, names in lower case.
    """
    # Each part with its length, so that no two lists of parts are written alike.
    digest = hashlib.sha256()
    for part in (
        b"1",
        method.encode(),
        url.encode(),
        scope.encode(),
        *(one for pair in sorted(headers) for one in pair),
    ):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    digest.update(b"|")
    digest.update(canonical)
    return digest.hexdigest()
