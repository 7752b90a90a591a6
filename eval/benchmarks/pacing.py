"""Steady overload of a server that limits and says so in headers: how many requests are refused, and what is wasted.

    python eval/benchmarks/pacing.py [--minutes 10] [--callers 50] [--kind bucket|window]

The server, in this process, allows 600 requests a minute: a bucket that fills all the time, as OpenAI's, or a window
that is empty at once. Callers never pause; they are this plugin's (`limits: {pace: true}`), and a bucket of the same
size is asked by OpenAI's client as it comes, beside them. Nothing is computed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections import Counter

import openai
from aiohttp import web

from nat_dynamo_plugin import DynamoModelConfig, make_service

LIMIT, WINDOW_S = 600.0, 60.0
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}


class Provider:
    """Answers after 50 to 300 ms, or with 429."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.left, self.at, self.began = LIMIT, time.monotonic(), time.monotonic()
        self.statuses: Counter[int] = Counter()

    def take(self) -> bool:
        now = time.monotonic()
        if self.kind == "bucket":
            self.left = min(LIMIT, self.left + (now - self.at) * LIMIT / WINDOW_S)
        elif now - self.began >= WINDOW_S:
            self.left, self.began = LIMIT, self.began + (now - self.began) // WINDOW_S * WINDOW_S
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        status = 200 if self.take() else 429
        self.statuses[status] += 1
        if self.kind == "bucket":
            reset = (LIMIT - self.left) * WINDOW_S / LIMIT
        else:
            reset = WINDOW_S - (time.monotonic() - self.began)
        headers = {
            "x-ratelimit-limit-requests": f"{LIMIT:.0f}",
            "x-ratelimit-remaining-requests": str(int(self.left)),
            "x-ratelimit-reset-requests": f"{reset:.3f}s",
        }
        await asyncio.sleep(0.05 + 0.25 * (self.statuses.total() % 97) / 97)
        if status == 429:
            return web.json_response({"error": {"message": "slow down", "type": "x"}}, status=429, headers=headers)
        return web.json_response(ANSWER, headers=headers)


async def served(kind: str) -> tuple[Provider, str, web.AppRunner]:
    provider = Provider(kind)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    return provider, f"http://127.0.0.1:{runner.addresses[0][1]}/v1", runner


async def ask(client: openai.AsyncOpenAI, until: float, failed: Counter[str]) -> None:
    while time.monotonic() < until:
        try:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
        except openai.APIStatusError as error:
            failed[str(error.status_code)] += 1


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--kind", choices=("bucket", "window"), default="bucket")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    (ours, our_url, one), (theirs, their_url, two) = await served(arguments.kind), await served(arguments.kind)
    config = DynamoModelConfig(
        model_name="m", base_url=our_url, limits={"pace": True}, deadlines={"call": 600}, prefix_template=None
    )
    service = make_service(config)
    failed: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    until = time.monotonic() + arguments.minutes * 60
    async with service.http_clients() as clients, openai.AsyncOpenAI(base_url=their_url, api_key="x") as plain:
        paced = clients.async_openai()
        await asyncio.gather(
            *(ask(paced, until, failed[0]) for _ in range(arguments.callers)),
            *(ask(plain, until, failed[1]) for _ in range(arguments.callers)),
        )
    allowed = LIMIT * (arguments.minutes + (arguments.kind == "bucket"))
    for name, provider, lost in (("this plugin, paced", ours, failed[0]), ("openai as it comes", theirs, failed[1])):
        answered, refused = provider.statuses[200], provider.statuses[429]
        print(
            f"{name}: {answered} answered ({answered / allowed:.3f} of what was allowed), {refused} refused with 429, "
            f"{lost.total()} calls failed"
        )
    await one.cleanup()
    await two.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
