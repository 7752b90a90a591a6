"""Which texts ask the same in almost the same words: equal content words, in order. No I/O in here.

Vectors are not asked: whatever they proposed, the words would have to agree, and texts whose words agree are found by
them alone. A cosine decides nothing ("Convert 10 USD to EUR" and "Convert 10 EUR to USD" have 1.000 of it with static
vectors).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import msgspec

from nat_dynamo_plugin.cache.key import Asked
from nat_dynamo_plugin.cache.policy import has_image_or_tool

MAX_CHARS = 2000
"""Of a longer text every word may count."""

_DROPPED = frozenset(("a", "an", "the", "please", "kindly", "hi", "hello", "hey"))
_ASKING = frozenset(("what", "who", "whom", "whose", "when", "where", "why", "how", "which"))
_CONTRACTIONS = (
    (re.compile(r"\bcan't\b"), "can not"),
    (re.compile(r"\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(i)'m\b"), r"\1 am"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"\b(what|who|where|when|how|that|there|it)'s\b"), r"\1 is"),
)
_WORD = re.compile(r"[^\W_]+(?:[.,'_-][^\W_]+)*|[^\s\w.,;:!\"']|_+")
_FORMATTED = re.compile(r"[\n\r\t`{}<>|\\]")
_encode = msgspec.json.Encoder(order="deterministic").encode


def content_words(text: str) -> tuple[str, ...] | None:
    """The words and signs that a text's meaning hangs on; `None` for a text whose form may count (code, lists)."""
    if len(text) > MAX_CHARS or _FORMATTED.search(text.strip()):
        return None
    plain = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    shouted = plain.upper() == plain
    # An acronym is no word: IT and it, US and us.
    lowered = re.sub(
        r"[^\W\d_]+", lambda m: m[0] if len(m[0]) > 1 and m[0].isupper() and not shouted else m[0].lower(), plain
    )
    for pattern, instead in _CONTRACTIONS:
        lowered = pattern.sub(instead, lowered)
    words = [word for word in _WORD.findall(lowered) if word not in _DROPPED]
    if words and words[0] in _ASKING and words[-1] == "?":
        words.pop()  # a question without its mark is one all the same; "you did it" and "you did it?" are two things
    return tuple(words) if any(word[0].isalnum() for word in words) else None


def near_form(asked: Asked) -> bytes | None:
    """What all requests have in common that differ in the wording of the last user's text only.

    `None` where wording may matter: another temperature than 0, tools, images, a last message that is not a user's.
    """
    body = asked.body
    if body.get("temperature") != 0 or body.get("tools") or body.get("functions") or body.get("n", 1) not in (1, None):
        return None
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or has_image_or_tool(messages):
        return None
    last = messages[-1]
    text = _text(last)
    words = None if text is None else content_words(text)
    if words is None:
        return None
    canonical: dict[str, Any] = msgspec.json.decode(asked.canonical)
    canonical["messages"][-1] = {**canonical["messages"][-1], "content": ["near", *words]}
    return _encode(canonical)


def _text(message: Any) -> str | None:
    """The text of a user's message."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return None
    content = message.get("content")
    if isinstance(content, list) and len(content) == 1:
        content = content[0].get("text")
    return content if isinstance(content, str) else None


def same_answer(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers say the same: equal but for the wording that `content_words` does not see.

    An answer in other words counts as another one, so that what is reported as wrong is never too little.
    """
    return [_said(choice) for choice in one["choices"]] == [_said(choice) for choice in other["choices"]]


def _said(choice: dict[str, Any]) -> tuple[Any, ...]:
    message = choice["message"]
    text = message.get("content")
    words = content_words(text) if isinstance(text, str) else None
    return words or text, message.get("refusal"), message.get("tool_calls"), message.get("function_call")
