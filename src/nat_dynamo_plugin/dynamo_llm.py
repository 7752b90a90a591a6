"""The documented names of NAT 1.4's `nat.llm.dynamo_llm`, as a thin facade over this package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects import prefix_headers
from nat_dynamo_plugin.nat.takeover import dynamo_llm
from nat_dynamo_plugin.plan.serving import make_plan
from nat_dynamo_plugin.question.hints import PrefixHints, PrefixLevel, parse_level_or_number
from nat_dynamo_plugin.question.prefix import CallIdentity, DynamoPrefixContext, PrefixTemplate

DEFAULT_TEMPLATE = "nat-dynamo-{uuid}"


def _create_dynamo_request_hook(
    prefix_template: str | None, total_requests: int, osl: str, iat: str
) -> Callable[[httpx.Request], Awaitable[None]]:
    """An async httpx request hook that sets the four `x-prefix-*` headers.

    Args:
        prefix_template: template of the id used outside any `DynamoPrefixContext`, made once for this hook.
        total_requests: calls expected of a prefix.
        osl: LOW, MEDIUM or HIGH, in any case.
        iat: LOW, MEDIUM or HIGH, in any case.

    Raises:
        ValueError: for an unknown placeholder or level.
    """
    template = PrefixTemplate(prefix_template or DEFAULT_TEMPLATE)
    default_id = template.render(run=None, conversation=None, function=None)
    hints = PrefixHints(
        total_requests=total_requests,
        osl=parse_level_or_number("osl", osl),
        iat=parse_level_or_number("iat", iat),
    )

    async def set_prefix_headers(request: httpx.Request) -> None:
        prefix_id = DynamoPrefixContext.get() or default_id
        identity = CallIdentity(prefix_id, prefix_id, None, (), False)
        for name, value in prefix_headers.say(make_plan(identity, hints, 0)).headers:
            request.headers[name.decode("ascii")] = value.decode("ascii")

    return set_prefix_headers


def create_httpx_client_with_dynamo_hooks(
    prefix_template: str | None, total_requests: int, osl: str, iat: str, timeout: float = 600.0
) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` whose one request hook sets the `x-prefix-*` headers.

    Args:
        prefix_template: see `_create_dynamo_request_hook`, like the next three.
        total_requests: calls expected of a prefix.
        osl: expected output length.
        iat: expected time between calls.
        timeout: seconds.
    """
    hook = _create_dynamo_request_hook(prefix_template, total_requests, osl, iat)
    return httpx.AsyncClient(event_hooks={"request": [hook]}, timeout=httpx.Timeout(timeout))


__all__ = [
    "DynamoModelConfig",
    "DynamoPrefixContext",
    "PrefixLevel",
    "_create_dynamo_request_hook",
    "create_httpx_client_with_dynamo_hooks",
    "dynamo_llm",
]
