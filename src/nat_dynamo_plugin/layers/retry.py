"""The one retry layer of all clients: httpx-retries below our transport, set by the config's retry fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
from httpx_retries import Retry

from nat_dynamo_plugin.config.model import DynamoModelConfig

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

    A call that keeps failing costs `retry.max_retries + 1` requests.
    """
    retries = config.retry.max_retries
    if retries < 1:
        return None
    statuses, texts = config.retry.statuses, config.retry.texts

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


def _look_for(texts: tuple[str, ...], response: httpx.Response, body: bytes) -> None:
    # What was read is put back, for whoever gets the response if it is not retried.
    response.stream = httpx.ByteStream(body)
    text = httpx.Response(response.status_code, headers=response.headers, content=body).text.lower()
    if any(wanted in text for wanted in texts):
        raise _RetryableError
