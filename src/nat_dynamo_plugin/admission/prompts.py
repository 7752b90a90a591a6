"""Prompts in pieces, so that what two of them have in common can be seen before they are sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import msgspec

CHUNK_BYTES = 2048
"""Longest piece of a prompt; longer texts are cut."""

MEDIA_BYTES = 4000
"""What an image, a sound or a file counts as, in bytes of text: about 1000 tokens. An image of 1024 * 1024 pixels is
765 tokens for GPT-4o, and (1024 / 28)², so 1337, for a model with patches of 28 pixels; its base64 as text would be
more than 100,000."""

_MEDIA = re.compile(
    # A part that points to something or holds it: {"type": "image_url", "image_url": {"url": "..."}}
    rb'"(?:image|audio|video|file)_url"\s*:\s*(?:\{[^{}]*?"url"\s*:\s*)?"[^"]*"'
    # Bare base64 of a sound, a file, or an image that was made.
    rb'|"(?:data|file_data|result|b64_json)"\s*:\s*"[^"\s\\]{1024,}"'
    # A data URL anywhere else; as a whole value only, for within a text it is one.
    rb'|(?<!\\)"data:[^"\s,]{1,200};base64,[^"]*"'
)
_raw_items = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECTS_OR_TEXTS = (b"{", b'"', b"[")


class _Body(msgspec.Struct):
    """The fields of OpenAI's chat completions, completions and responses that a prompt is made of.

    In the order in which chat templates render them: tools and instructions come before the conversation.
    """

    tools: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body)


@dataclass(frozen=True)
class Prompt:
    """A prompt as a path in the tree of all prompts.

    Attributes:
        pieces: for each piece its key and its size in bytes. The key stands for the piece and all before it, as a KV
            block's hash does, so two prompts have as much in common as they have keys in common. Keys are good within
            this process only.
    """

    pieces: tuple[tuple[int, int], ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(size for _, size in self.pieces)


def read_prompt(body: bytes) -> Prompt:
    """The prompt in a request's body; an empty one for a body that is none of OpenAI's."""
    try:
        fields = _body.decode(body)
        pieces: list[tuple[int, int]] = []
        key = 0
        for field in (fields.tools, fields.instructions, fields.messages, fields.input, fields.prompt):
            for text in _texts(bytes(field)):
                for part, size in _parts(text):
                    for start in range(0, len(part), len(part) if size else CHUNK_BYTES):
                        chunk = part if size else part[start : start + CHUNK_BYTES]
                        key = hash((key, chunk))
                        pieces.append((key, size or len(chunk)))
    except (msgspec.DecodeError, RecursionError):
        return Prompt()
    return Prompt(tuple(pieces))


def _parts(text: bytes) -> list[tuple[bytes, int]]:
    """A text's parts, each with what it counts as, in bytes; 0 for its own length."""
    parts = []
    start = 0
    for found in _MEDIA.finditer(text):
        parts += [(text[start : found.start()], 0), (found.group(), MEDIA_BYTES)]
        start = found.end()
    parts.append((text[start:], 0))
    return parts


def _texts(raw: bytes) -> list[bytes]:
    """A field's items, each as it stands in the body; token ids are one text."""
    raw = raw.strip()
    if raw[:1] == b"[" and raw[1:].lstrip()[:1] in _OBJECTS_OR_TEXTS:
        return [bytes(item) for item in _raw_items.decode(raw)]
    return [raw] if raw and raw != b"null" else []
