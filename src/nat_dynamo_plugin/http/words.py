"""What a caller reads of a failed call: the server's words, and whom was asked for what, how often, how long."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from nat_dynamo_plugin.http.call import Call, Reply
from nat_dynamo_plugin.telemetry.kinds import ADVICE, classify

_MAX_WORDS = 4000
"""Longest text of a server that is no JSON (characters) in an exception."""
_ATTRIBUTE = "dynamo_words"
_ABOUT = re.compile(r"\[[^\[\]]*, \d+ attempts? in [\d.]+ s: \w+")


def about(call: Call) -> str:
    """Of a failed call: server, model, question, worker, request id, attempts, time, what went wrong, what to do."""
    record = call.record
    kind = classify(record.status, record.error_type, record.error or "")
    model = record.model or record.request_model
    who = [
        record.origin or call.origin,
        *([f"model {model}"] if model else []),
        *([f"prefix {record.prefix_id}"] if record.prefix_id else []),
        *([f"worker {record.worker_id}"] if record.worker_id is not None else []),
        *([f"request {record.request_ids[-1]}"] if record.request_ids else []),
        f"{record.attempts} attempt{'s' * (record.attempts != 1)} in {call.now_ms / 1000.0:.1f} s",
    ]
    advice = ADVICE.get(kind)
    return f"[{', '.join(who)}: {kind.value}{f'; {advice}' if advice else ''}]"


def says_about(text: str) -> bool:
    """Whether an error's text has what `about` says, so that no traceback is needed to know what it was."""
    return _ABOUT.search(text) is not None


def told(call: Call, reply: Reply) -> Reply:
    """An error reply whose message also says what `about` says; of one without a message its text is that."""
    content = reply.content
    if content is None or "content-encoding" in reply.headers:
        return reply
    try:
        body: Any = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        body = content[:_MAX_WORDS].decode("utf-8", "replace")
    error = body.get("error", body) if isinstance(body, dict) else body
    words = about(call)
    if isinstance(error, dict) and isinstance(error.get("message", ""), str):
        changed = error | {"message": f"{error.get('message', '')} {words}".strip()}
        body = body | {"error": changed} if "error" in body else {"error": changed}
    elif isinstance(error, str):
        body = {"error": {"message": f"{error} {words}".strip(), "type": None, "code": reply.status}}
    else:  # with our own content type, for the server's may name an encoding that its text is not in
        text = content[:_MAX_WORDS].decode("utf-8", "replace")
        body = {"error": {"message": f"{text} {words}".strip(), "type": None, "code": reply.status}}
    return reply.with_content(json.dumps(body).encode())


def tell(call: Call, error: Exception) -> None:
    """Have an HTTP library's exception say what `about` says, and OpenAI's one that is made of it."""
    words = f"{error or type(error).__name__} {about(call)}"
    error.args = (words,)
    setattr(error, _ATTRIBUTE, words)


def let_openai_tell() -> None:
    """Let `openai.APIConnectionError`, whose text is "Connection error." whatever happened, say what happened.

    The library makes it anew of whatever a transport raises, so its `__str__` is the only place. Other calls' errors
    read as ever.
    """
    openai: Any = sys.modules.get("openai")
    cls = getattr(openai, "APIConnectionError", None)
    if cls is not None and "__str__" not in vars(cls):
        cls.__str__ = _text


def _text(self: BaseException) -> str:
    text, cause = Exception.__str__(self), self.__cause__
    while cause is not None:
        if (words := getattr(cause, _ATTRIBUTE, None)) is not None:
            return f"{text} {words}"
        cause = cause.__cause__
    return text
