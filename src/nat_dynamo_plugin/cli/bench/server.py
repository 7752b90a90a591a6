"""What is to be known of a server before it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from nat_dynamo_plugin.admission.capacity import count_workers
from nat_dynamo_plugin.cli.bench.calls import USAGE, stream
from nat_dynamo_plugin.recording.words import words

CALIBRATION_WORDS = 400


class NotMeasurable(Exception):
    """A server that can not be measured; the message says why not."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how it is asked.

    Attributes:
        base_url: with `/v1`, without user name and password.
        model: that is asked.
        is_dynamo: whether its `/health` lists instances, as only Dynamo's frontend does.
        workers: how many it lists; `None` if it lists none.
        tokens_per_word: of our random words, as its tokenizer counts; 1 if it does not say.
        says_usage: whether it counts the tokens of streams.
        says_cached: whether it says how many tokens were cached.
    """

    base_url: str
    model: str
    is_dynamo: bool
    workers: int | None
    tokens_per_word: float
    says_usage: bool
    says_cached: bool

    @property
    def stream_options(self) -> dict[str, Any]:
        """What asks it for the counts of a stream."""
        return USAGE if self.says_usage else {}


async def look(base_url: str, model: str | None, http: httpx.AsyncClient, client: Any) -> Server:
    """Ask a server for its models, its health, and one call.

    Args:
        base_url: with `/v1`, without user name and password.
        model: to ask; `None` for the first that is served.
        http: asks what is no call.
        client: OpenAI's async client.

    Raises:
        NotMeasurable: it can not be reached, or answers no call.
    """
    from nat_dynamo_plugin.cli.doctor.reach import Unreachable, reach

    try:
        models, _ = await reach(base_url, http)
    except Unreachable as error:
        found = error.finding
        change = f"; change: {found.change}" if found.change else ""
        raise NotMeasurable(f"{found.topic}: {found.seen}{change}") from None
    if model is None:
        if not models:
            raise NotMeasurable(f"{base_url}/models names no model; wait for the workers, or name one: --model")
        model = models[0]
    health = await _health(base_url, http)
    arguments = {
        "model": model,
        "messages": [{"role": "user", "content": words("calibration", CALIBRATION_WORDS)}],
        "max_tokens": 1,
    }
    seen, says_usage = await _first_call(client, arguments, base_url, models)
    return Server(
        base_url=base_url,
        model=model,
        is_dynamo=isinstance(health, dict) and "instances" in health,
        workers=count_workers(health) or None,
        tokens_per_word=max(0.5, (seen.prompt_tokens or CALIBRATION_WORDS) / CALIBRATION_WORDS),
        says_usage=says_usage and seen.prompt_tokens is not None,
        says_cached=seen.cached_tokens is not None,
    )


async def _first_call(client: Any, arguments: dict[str, Any], base_url: str, models: list[str]) -> tuple[Any, bool]:
    """One call, with the question for its usage if the server takes that; whether it does."""
    from openai import APIStatusError, OpenAIError

    try:
        try:
            return await stream(client, {**arguments, **USAGE}), True
        except APIStatusError as error:
            if error.status_code not in (400, 422):
                raise
            return await stream(client, arguments), False
    except (OpenAIError, ValueError) as error:
        served = f"; it serves {', '.join(models)}" if arguments["model"] not in models and models else ""
        raise NotMeasurable(f"{base_url} answers no call to {arguments['model']!r}: {error}{served}") from None


async def _health(base_url: str, http: httpx.AsyncClient) -> Any:
    parts = urlsplit(base_url)
    try:
        return (await http.get(f"{parts.scheme}://{parts.netloc}/health", timeout=4.0)).json()
    except (httpx.HTTPError, ValueError):
        return None
