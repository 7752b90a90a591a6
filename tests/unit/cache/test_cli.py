"""`nat dynamo cache`, on a real Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nat_dynamo_plugin.cli.commands import dynamo
from nat_dynamo_plugin.question.org import org_scope

from ..redis_server import RedisServer, needs_redis
from .upstream import Model, answer, body, post

pytestmark = needs_redis


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(dynamo, ["cache", *arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.output) if "--json" in arguments else result.output


async def fill(model: Model, server: RedisServer) -> None:
    model.upstream.say = lambda asked: (200, "application/json", json.dumps(answer(model=asked["model"])).encode())
    async with model.clients({"redis_url": server.url, "redis_timeout": 1.0}) as clients:
        for org in ("acme", "globex"):
            for name in ("m", "n"):
                with org_scope(org):
                    await post(clients, body(model=name))
        cache = model.services[-1].cache
        assert cache is not None
        cache.close()


async def test_stats_clear_and_verify(model: Model, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(model, server)
    where = ("--redis-url", server.url, "--json")
    told = run("stats", *where)
    assert (told["entries"], told["prompt_tokens"], told["models"]) == (4, 48, {"m": 2, "n": 2})
    assert len(told["orgs"]) == 2 and "acme" not in str(told)
    assert run("verify", *where)["good"] == 4
    assert run("clear", *where, "--older-than", "1h")["cleared"] == 0
    assert run("clear", *where, "--model", "m", "--org", "acme")["cleared"] == 1
    assert run("clear", *where, "--model", "m")["cleared"] == 1
    monkeypatch.setenv("REDIS_URL", server.url)
    assert "entries            2" in run("stats")
    assert run("clear", "--json")["cleared"] == 2 and run("stats", "--json")["entries"] == 0


async def test_verify_finds_and_forgets_what_is_not_whole(model: Model, server: RedisServer) -> None:
    await fill(model, server)
    one, other, third, *_ = [name for name in server.client().scan_iter() if b":e:" in name]
    server.client().set(one, b"junk")
    server.client().set(other, server.client().get(third))
    where = ("--redis-url", server.url, "--json")
    told = run("verify", *where, code=1)
    assert (told["good"], told["bad"]) == (2, 2) and "it is another call's" in told["why"]
    assert run("verify", *where, "--delete")["bad"] == 2
    assert run("verify", *where)["good"] == 2


async def test_the_cache_is_found_in_a_config(model: Model, server: RedisServer, tmp_path: Path) -> None:
    await fill(model, server)
    file = tmp_path / "config.yml"
    file.write_text(f"llms:\n  llm:\n    _type: dynamo\n    cache:\n      redis_url: {server.url}\n")
    assert run("stats", "--config", str(file), "--json")["entries"] == 4
    file.write_text("llms: {}\n")
    assert "no LLM has a cache" in run("stats", "--config", str(file), code=1)


def test_what_can_not_be_is_said(server: RedisServer) -> None:
    assert "use a number" in run("clear", "--redis-url", server.url, "--older-than", "soon", code=2)
    server.kill()
    assert "can not be used" in run("stats", "--redis-url", server.url, code=1)
