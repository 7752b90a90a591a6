"""The one retry layer of all clients: httpx-retries below our transport, set by the config's retry fields."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx
from httpx_retries import Retry

from nat_dynamo_plugin.config.model import DynamoModelConfig

STATUSES = (408, 409, 529)
"""Retried besides `retry_on_status_codes`: what the OpenAI library retries, and Dynamo 1.6.0's word for overload."""

BACKOFF_S = 0.25
"""The first wait is drawn from 0 to this (s); it doubles with each retry."""
MAX_BACKOFF_S = 8.0
"""Longest wait between two requests (s), unless the server asks for more with `Retry-After`."""


class _RetryableError(Exception):
    """An error answer whose text is listed in `retry_on_errors`. Never leaves the retry layer."""


_EXCEPTIONS = (
    # The connection failed, so no answer is being made. A read timeout is not here: the server is still at work.
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.WriteError,
    httpx.ReadError,
    httpx.RemoteProtocolError,
    _RetryableError,
)


def retry_policies(config: DynamoModelConfig) -> tuple[Retry, Retry] | None:
    """The policies of the sync and the async client; `None` where nothing is retried.

    A call that keeps failing costs `max_retries + 1` requests, or `num_retries` if that is set: NAT counts attempts
    there. `do_auto_retry: false` turns all retries off.
    """
    retries = config.max_retries if config.num_retries is None else config.num_retries - 1
    if retries < 1 or not config.do_auto_retry:
        return None
    statuses, texts = _what_to_retry(config.retry_on_status_codes, config.retry_on_errors)

    def policy(validate: Callable[[httpx.Response], Awaitable[None] | None]) -> Retry:
        return Retry(
            total=retries,
            allowed_methods=["POST", "GET"],
            status_forcelist=statuses,
            retry_on_exceptions=_EXCEPTIONS,
            backoff_factor=BACKOFF_S,
            max_backoff_wait=MAX_BACKOFF_S,
            validate_response=validate if texts else None,
        )

    def check(response: httpx.Response) -> None:
        if response.is_error:
            assert isinstance(response.stream, httpx.SyncByteStream)
            body = b"".join(response.stream)
            response.stream.close()
            _look_for(texts, response, body)

    async def check_async(response: httpx.Response) -> None:
        if response.is_error:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            body = b"".join([chunk async for chunk in response.stream])
            await response.stream.aclose()
            _look_for(texts, response, body)

    return policy(check), policy(check_async)


def _what_to_retry(codes: list[int | str], errors: list[str] | None) -> tuple[set[int], tuple[str, ...]]:
    """Statuses, and lower-case texts of an error answer, that are retried; as in NAT, no filter at all means all."""
    if not codes and not errors:
        return set(range(400, 600)), ()
    # NAT looks for a text like "429" in "Error code: 429 - ..."; in the answer alone it might be any number.
    numbers = [text for text in errors or () if re.fullmatch("[1-5][0-9][0-9]", text)]
    texts = tuple(text.lower() for text in errors or () if text and text not in numbers)
    return {*STATUSES, *expand_statuses([*codes, *numbers])}, texts


def _look_for(texts: tuple[str, ...], response: httpx.Response, body: bytes) -> None:
    # What was read is put back, for whoever gets the response if it is not retried.
    response.stream = httpx.ByteStream(body)
    text = httpx.Response(response.status_code, headers=response.headers, content=body).text.lower()
    if any(wanted in text for wanted in texts):
        raise _RetryableError


def expand_statuses(codes: list[int | str]) -> set[int]:
    """HTTP statuses of NAT's patterns: a number, or text in which `x` stands for any digit and `*` for the rest.

    Raises:
        ValueError: for what is neither.
    """
    statuses: set[int] = set()
    for code in codes:
        pattern = str(code).lower().replace("*", "x" * max(1, 4 - len(str(code))))
        if not re.fullmatch("[1-5x][0-9x][0-9x]", pattern):
            raise ValueError(
                f"retry_on_status_codes: {code!r} is not allowed; use a status from 100 to 599 or a pattern like 5xx"
            )
        regex = re.compile(pattern.replace("x", "[0-9]"))
        statuses.update(status for status in range(100, 600) if regex.fullmatch(str(status)))
    return statuses
