"""What the JSON of an answer says, member by member: one that is odd loses itself and nothing else. No I/O in here.

Only what telemetry needs is decoded (`msgspec` skips the rest). Protocol: OpenAI's chat completions, completions and
responses, plus Dynamo's `nvext` (`worker_id`, `timing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, get_args

import msgspec

from nat_dynamo_plugin.telemetry.record import CallRecord, Usage

MAX_ERROR_CHARS = 500
CHAT = "chat_completions"
"""The API whose choices have messages."""

ReadUsage = Callable[[dict[str, Any]], Usage | None]
"""Reads the `usage` of an answer in a provider's own words; `None`, as a whole or of a member: not said."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Number = Annotated[float, msgspec.Meta(ge=0)]
_ABSENT = msgspec.Raw()
_NOTHING = frozenset((b"", b"null", b'""', b"[]", b"{}"))
_S = TypeVar("_S", bound=msgspec.Struct)


class _Lifetimes(msgspec.Struct):
    ttl_30m_tokens: Count | None = None
    ttl_12h_tokens: Count | None = None


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_tokens_details: _Lifetimes | None = None


class _AnswerDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _AnswerDetails | None = None
    # The responses API has its own names.
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _AnswerDetails | None = None


class _Worker(msgspec.Struct):
    decode_worker_id: Count | None = None


class _Timing(msgspec.Struct):
    ttft_ms: Number | None = None
    total_time_ms: Number | None = None
    prefill_wait_time_ms: Number | None = None
    kv_hit_rate: Number | None = None
    router_queue_depth: Count | None = None


class _Nvext(msgspec.Struct):
    worker_id: _Worker | None = None
    timing: _Timing | None = None


class Delta(msgspec.Struct):
    """What a streamed choice adds."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    refusal: Any = None
    function_call: Any = None


class Message(msgspec.Struct):
    """What a choice says; only that it is an object is looked at."""


class Choice(msgspec.Struct):
    """One of the answers to a prompt, or a part of it."""

    index: int = 0
    finish_reason: str | None = None
    delta: Delta | None = None
    message: Message | None = None
    text: Any = None

    def token(self) -> Any:
        """The token that it brings, something empty if it brings none: content, reasoning, a tool call or a text."""
        delta = self.delta
        if delta is None:
            return self.text
        return (
            delta.content
            or delta.reasoning_content
            or delta.tool_calls
            or delta.reasoning
            or delta.refusal
            or delta.function_call
        )


class Answer(msgspec.Struct):
    """An answer, an event of a streamed one, or the `response` in an event of the responses API."""

    model: str | None = None
    type: str | None = None
    status: str | None = None
    choices: list[Choice] | None = None
    usage: msgspec.Raw = _ABSENT
    nvext: msgspec.Raw = _ABSENT
    response: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


class _Plain(msgspec.Struct):
    """An answer in which everything is as it should be, read in one go."""

    model: str | None = None
    choices: list[Choice] | None = None
    usage: _Usage | None = None
    nvext: _Nvext | None = None
    error: msgspec.Raw = _ABSENT
    status: msgspec.Raw = _ABSENT


def is_said(raw: msgspec.Raw) -> bool:
    """Whether a member is there, and neither null nor empty."""
    return len(raw) > 5 or bytes(raw) not in _NOTHING


_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_nvext = msgspec.json.Decoder(_Nvext).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_answer(data: bytes | msgspec.Raw) -> Answer | None:
    """An answer with what could be read of it; `None` if it is no JSON object."""
    try:
        return _decode_answer(data)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _read_members(Answer, data)  # some member is not what it should be
    except (msgspec.DecodeError, RecursionError):
        return None


def _read(kind: type[_S], decode: Callable[[msgspec.Raw], _S], data: msgspec.Raw) -> _S | None:
    try:
        return decode(data)
    except (ValueError, RecursionError):
        return _read_members(kind, data)


def _read_members(kind: type[_S], data: bytes | msgspec.Raw) -> _S | None:
    try:
        members = _decode_members(data)
    except (ValueError, RecursionError):
        return None
    known = {}
    for spec in msgspec.structs.fields(kind):
        if spec.name in members and (value := _member(spec.type, members[spec.name])) is not None:
            known[spec.name] = value
    return kind(**known)


def _member(kind: Any, data: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError):
        pass
    for part in get_args(kind) or (kind,):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return _read_members(part, data)
        if part == list[Choice]:
            return [choice for raw in _member(list[msgspec.Raw], data) or () if (choice := _member(Choice, raw))]
    return None


def take_plain(record: CallRecord, data: bytes) -> bool:
    """Put what an answer of the usual kind says into its record; whether it is one, or has to be looked at closely."""
    try:
        answer = _decode_plain(data)
    except (ValueError, RecursionError):
        return False
    choices = answer.choices
    if not choices or answer.error or answer.status or choices[0].finish_reason in (None, "error"):
        return False
    if record.api == CHAT and not all(choice.message for choice in choices):
        return False
    record.finish_reason = choices[0].finish_reason
    if answer.model is not None:
        record.model = answer.model
    usage = answer.usage
    if usage is not None:
        _count_usage(record, usage)
    nvext = answer.nvext
    if nvext is not None:
        if nvext.worker_id is not None:
            record.worker_id = nvext.worker_id.decode_worker_id
        timing = nvext.timing
        if timing is not None:
            record.server_ttft_ms = timing.ttft_ms
            record.server_total_ms = timing.total_time_ms
            record.server_prefill_wait_ms = timing.prefill_wait_time_ms
            record.kv_hit_rate = timing.kv_hit_rate
            record.queue_depth = timing.router_queue_depth
    return True


def take(record: CallRecord, answer: Answer, read_usage: Sequence[ReadUsage] = ()) -> None:
    """Put what an answer says of itself into its record."""
    if answer.model is not None:
        record.model = answer.model
    if is_said(answer.usage):
        _take_usage(record, answer.usage, read_usage)
    if is_said(answer.nvext) and (nvext := _read(_Nvext, _decode_nvext, answer.nvext)) is not None:
        _take_nvext(record, nvext)


def _count_usage(record: CallRecord, usage: _Usage) -> None:
    for prompt, completion, details, answer in (
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.prompt_tokens_details,
            usage.completion_tokens_details,
        ),
        (usage.input_tokens, usage.output_tokens, usage.input_tokens_details, usage.output_tokens_details),
    ):
        if prompt is not None:
            record.prompt_tokens = prompt
        if completion is not None:
            record.completion_tokens = completion
        if details is not None:
            _count_cache(record, details)
        if answer is not None and answer.reasoning_tokens is not None:
            record.reasoning_tokens = answer.reasoning_tokens


def _count_cache(record: CallRecord, details: _Details) -> None:
    if details.cached_tokens is not None:
        record.cached_tokens = details.cached_tokens
    if details.cache_write_tokens is not None:
        record.cache_write_tokens = details.cache_write_tokens
    lifetimes = details.cache_write_tokens_details
    if lifetimes is not None:
        by_ttl = {"30m": lifetimes.ttl_30m_tokens, "12h": lifetimes.ttl_12h_tokens}
        record.cache_writes = {ttl: tokens for ttl, tokens in by_ttl.items() if tokens}


def _take_usage(record: CallRecord, raw: msgspec.Raw, read_usage: Sequence[ReadUsage]) -> None:
    usage = _read(_Usage, _decode_usage, raw)
    if usage is None:
        return
    _count_usage(record, usage)
    if not read_usage:
        return
    said = _member(dict[str, Any], raw)
    for read in read_usage:
        try:
            own = read(said) if said else None
        except Exception:
            own = None  # an answer is what it may be, and telemetry must not fail a call
        if own is not None:
            take_usage(record, own)


def take_usage(record: CallRecord, usage: Usage) -> None:
    """Put what a dialect has read into the record; what it does not say stays."""
    for name in Usage._fields:
        value = getattr(usage, name, None)
        kind = float if name == "reported_usd" else int
        if name == "cache_writes":
            if value:
                record.cache_writes = dict(value)
        elif isinstance(value, int | kind) and not isinstance(value, bool) and value >= 0:
            setattr(record, name, value)


_TIMES = (
    ("ttft_ms", "server_ttft_ms"),
    ("total_time_ms", "server_total_ms"),
    ("prefill_wait_time_ms", "server_prefill_wait_ms"),
    ("kv_hit_rate", "kv_hit_rate"),
    ("router_queue_depth", "queue_depth"),
)


def _take_nvext(record: CallRecord, nvext: _Nvext) -> None:
    if nvext.worker_id is not None and nvext.worker_id.decode_worker_id is not None:
        record.worker_id = nvext.worker_id.decode_worker_id
    if nvext.timing is not None:
        for name, ours in _TIMES:
            if (value := getattr(nvext.timing, name)) is not None:
                setattr(record, ours, value)


def error_text(body: bytes | msgspec.Raw) -> str:
    """The server's own words out of an error body, at most 500 characters.

    Knows OpenAI's `{"error": {"message", "param"}}`, Dynamo's flat `{"message"}`, and FastAPI's `{"detail"}`.
    """
    try:
        text = _words(msgspec.json.decode(body))
    except (ValueError, RecursionError):
        text = bytes(body)[:2000].decode("utf-8", "replace")
    return text.strip()[:MAX_ERROR_CHARS]


def _words(data: Any) -> str:
    error = (data.get("error") or data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return str(error)
    said = [error.get("message"), _details(error.get("detail"))]
    text = "; ".join(str(part) for part in said if part) or str(error)
    param = error.get("param")
    return f"{text} (param: {param})" if param and str(param) not in text else text


def _details(detail: Any) -> Any:
    """FastAPI's and pydantic's list of `{"loc": [...], "msg": ...}` as text."""
    if not isinstance(detail, list) or not all(isinstance(part, dict) for part in detail):
        return detail
    return "; ".join(
        f"{'.'.join(map(str, loc)) if isinstance(loc := part.get('loc'), list) else loc}: {part.get('msg')}"
        for part in detail
    )
