"""An answer as it is kept: msgpack with a version, never pickle; encrypted if there is a key for it."""

from __future__ import annotations

import struct
from time import time
from typing import Any, Protocol

import msgspec

VERSION = 1
"""Of the form below; an entry of another version is none."""

_HEAD = struct.Struct(">BBd")
_PLAIN, _SEALED = 0, 1
HEAD_BYTES = _HEAD.size
"""Bytes in front of an entry that say its version, its form and when it was made, in clear."""


class NotReadable(ValueError):
    """These bytes are no entry of ours: foreign, corrupt, of another version, or sealed with another key."""


class Entry(msgspec.Struct, frozen=True):
    """One answer.

    Attributes:
        key: the call's, so that no entry answers another one.
        created: when it was made, in seconds since the epoch.
        answer: the chat completion in one piece, JSON, as `replay.normal` has it.
        model: the model asked for.
        org: HMAC of the org, empty if there is none.
        has_usage: whether the server was asked to say its usage.
        answered_by: the model that answered.
        finish_reason: of the first choice.
        prompt_tokens: of the call that made it.
        cached_tokens: those of them that came out of the engine's KV cache.
        completion_tokens: of the answer.
        asked: of an entry for almost equal questions, the key of the one that was asked.
    """

    key: str
    created: float
    answer: bytes
    model: str = ""
    org: str = ""
    has_usage: bool = False
    answered_by: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    asked: str = ""

    @property
    def age_s(self) -> float:
        """Seconds since it was made; 0 for one that another machine's clock has made later than now."""
        return max(0.0, time() - self.created)


class Seal(Protocol):
    """Encrypts what is kept, and knows what it has encrypted."""

    def close(self, data: bytes, head: bytes) -> bytes:
        """Encrypt."""

    def open(self, data: bytes, head: bytes) -> bytes:
        """Decrypt; raises `NotReadable`."""


_decoder = msgspec.msgpack.Decoder(Entry)
_encoder = msgspec.msgpack.Encoder()
decode_answer = msgspec.json.Decoder(dict[str, Any]).decode


def pack(entry: Entry, seal: Seal | None = None) -> bytes:
    """The entry as bytes."""
    body = _encoder.encode(entry)
    head = _HEAD.pack(VERSION, _PLAIN if seal is None else _SEALED, entry.created)
    return head + (body if seal is None else seal.close(body, head))


def unpack(data: bytes, seal: Seal | None = None, key: str | None = None) -> Entry:
    """The entry that these bytes hold.

    Args:
        data: what `pack` made.
        seal: what it was made with.
        key: whose it must be; `None` for anybody's.

    Raises:
        NotReadable: they hold none.
    """
    head, body = data[:HEAD_BYTES], data[HEAD_BYTES:]
    version, form = head[:1], head[1:2]
    if len(head) < HEAD_BYTES or version != bytes((VERSION,)):
        raise NotReadable(f"it is of version {version[0] if version else None}, not {VERSION}")
    if form != bytes((_PLAIN if seal is None else _SEALED,)):
        raise NotReadable("it is encrypted" if seal is None else "it is not encrypted")
    if seal is not None:
        body = seal.open(body, head)
    try:
        entry = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotReadable(f"it can not be read: {error}") from None
    if key is not None and entry.key != key:
        raise NotReadable("it is another call's")
    return entry


def created_of(head: bytes) -> float | None:
    """When the entry with these first bytes was made; `None` if it is none of ours."""
    if len(head) < HEAD_BYTES or head[0] != VERSION:
        return None
    return float(_HEAD.unpack(head[:HEAD_BYTES])[2])


class AesSeal:
    """AES-256-GCM; the key is derived from a secret, and each entry has a nonce of its own.

    Args:
        secret: any text; the longer, the better.

    Raises:
        ImportError: `cryptography` is not installed.
    """

    def __init__(self, secret: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derive = HKDF(SHA256(), length=32, salt=None, info=b"nat-dynamo-plugin response cache 1")
        self._aes = AESGCM(derive.derive(secret.encode()))

    def close(self, data: bytes, head: bytes) -> bytes:
        """Encrypt."""
        import os

        nonce = os.urandom(12)
        return nonce + self._aes.encrypt(nonce, data, head)

    def open(self, data: bytes, head: bytes) -> bytes:
        """Decrypt.

        Raises:
            NotReadable: it was changed, or encrypted with another key.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._aes.decrypt(data[:12], data[12:], head)
        except (InvalidTag, ValueError):
            raise NotReadable("it is encrypted with another key, or was changed") from None
