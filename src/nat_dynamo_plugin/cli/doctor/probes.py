"""Small calls that show what a server does with what we send."""

from __future__ import annotations

import asyncio
import random
import uuid
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import httpx

from nat_dynamo_plugin.admission.capacity import count_workers
from nat_dynamo_plugin.cli.doctor.findings import Answered, Seen
from nat_dynamo_plugin.dialects.dynamo import SESSION
from nat_dynamo_plugin.dialects.telemetry import EXTRA_FIELDS
from nat_dynamo_plugin.http.answer_fields import error_text

SESSION_CALLS = 8
"""Unrelated calls of one session: on two workers, chance alone would keep them together once in 128."""
BURSTS = 4
"""Bursts until the router's queue counts as off."""
CALL_S = 30.0
"""Longest wait for one call, in seconds."""
LOOK_S = 60.0
"""Seconds for all calls; what could not be asked by then is not known."""
_WORDS = ["valve", "pump", "inlet", "gauge", "motor", "tank", "filter", "hose", "relay", "panel", "sensor", "nozzle"]
_PROMPT_WORDS = 300
"""Words of a prompt: several blocks of a KV cache, and a few milliseconds of an engine."""
_MAX_TEXT = 300


class Prober:
    """Asks one model of one server.

    Args:
        client: asks.
        base_url: ends with `/v1`.
        seen: where what is seen goes.
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str, seen: Seen) -> None:
        self._client = client
        self._base_url = base_url
        self._seen = seen
        self._started = perf_counter()
        self._random = random.Random(uuid.uuid4().int)  # no prompt that anybody has cached

    def _prompt(self, words: int = _PROMPT_WORDS) -> str:
        return " ".join(self._random.choices(_WORDS, k=words))

    async def call(
        self,
        prompt: str,
        *,
        session: str | None = None,
        nvext: dict[str, Any] | None = None,
        max_tokens: int = 4,
    ) -> Answered:
        """One call; what fails on the way is an answer too, of status 599."""
        body: dict[str, Any] = {
            "model": self._seen.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
        }
        if nvext is not None:
            body["nvext"] = nvext
        headers = {} if session is None else {SESSION.decode(): session}
        url = f"{self._base_url}/chat/completions"
        try:
            response = await self._client.post(url, json=body, headers=headers, timeout=CALL_S)
        except httpx.HTTPError as error:
            return Answered(599, f"{type(error).__name__}: {error}"[:_MAX_TEXT])
        return _read(response, (perf_counter() - self._started) * 1000.0)

    async def look(self, *, load: bool) -> None:
        """Make the calls, as long as each says that the next one is worth while, and for `LOOK_S` at most."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._look(load=load)
        except TimeoutError:
            self._seen.late_s = LOOK_S

    async def _look(self, *, load: bool) -> None:
        seen, told = self._seen, {"extra_fields": list(EXTRA_FIELDS)}
        await self._health()
        prompt = self._prompt()
        seen.plain = await self.call(prompt)
        if not seen.plain.ok:
            return
        seen.again = await self.call(prompt, nvext=told)
        if not seen.again.ok:
            return
        hints = {"priority": 1, "osl": 4, "speculative_prefill": False}
        seen.hinted = await self.call(prompt, nvext=told | {"agent_hints": hints})
        if seen.again.timing is None:
            return
        seen.repeated = [await self.call(prompt, nvext=told) for _ in range(4)]
        session = f"doctor-{uuid.uuid4().hex}"
        # In an order that no round-robin follows.
        order = [True, False] * SESSION_CALLS
        self._random.shuffle(order)
        for of_session in order:
            answer = await self.call(self._prompt(), session=session if of_session else None, nvext=told)
            (seen.session if of_session else seen.free).append(answer)
        crowd = 8 * (seen.workers or 2)
        for _ in range(BURSTS):
            seen.burst = await self._burst(crowd, told)
            if any((call.timing or {}).get("router_queue_depth") for call in seen.burst):
                break
        for _ in range(BURSTS):
            seen.session_burst = await self._burst(crowd, told, session)
            if any((call.timing or {}).get("router_queue_depth") for call in seen.session_burst):
                break
        if load:
            await self._crowd(crowd * 6, told)

    async def _burst(self, count: int, nvext: dict[str, Any], session: str | None = None) -> list[Answered]:
        prompts = [self._prompt() for _ in range(count)]
        return list(await asyncio.gather(*(self.call(one, session=session, nvext=nvext) for one in prompts)))

    async def _crowd(self, count: int, nvext: dict[str, Any]) -> None:
        """Many calls at once, and behind them a few that are urgent."""
        urgent = nvext | {"agent_hints": {"priority": 1000}}
        prompts = [self._prompt(4 * _PROMPT_WORDS) for _ in range(count)]
        late = [self._prompt(4 * _PROMPT_WORDS) for _ in range(max(4, count // 8))]
        calls = [self.call(one, nvext=nvext, max_tokens=32) for one in prompts]
        calls += [self.call(one, nvext=urgent, max_tokens=32) for one in late]
        done = await asyncio.gather(*calls)
        self._seen.early, self._seen.late_urgent = list(done[:count]), list(done[count:])

    async def _health(self) -> None:
        parts = urlsplit(self._base_url)
        root = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/v1')}"
        try:
            response = await self._client.get(f"{root}/health", timeout=CALL_S)
            health = response.json()
        except (httpx.HTTPError, ValueError):
            return
        self._seen.is_dynamo = isinstance(health, dict) and "instances" in health
        self._seen.workers = count_workers(health) or None


def _read(response: httpx.Response, ended_ms: float) -> Answered:
    status = response.status_code
    if status >= 300:
        return Answered(status, error_text(response.content)[:_MAX_TEXT], ended_ms=ended_ms)
    try:
        data: Any = _dict(response.json())
    except ValueError:
        data = {}
    if not data.get("choices"):
        return Answered(502, f"{status}, but no answer: {response.text[:_MAX_TEXT]}", ended_ms=ended_ms)
    usage, nvext = _dict(data.get("usage")), _dict(data.get("nvext"))
    return Answered(
        status,
        worker=_dict(nvext.get("worker_id")).get("decode_worker_id"),
        prompt_tokens=usage.get("prompt_tokens"),
        cached_tokens=_dict(usage.get("prompt_tokens_details")).get("cached_tokens"),
        timing=_dict(nvext.get("timing")) or None,
        ended_ms=ended_ms,
    )


def _dict(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}
