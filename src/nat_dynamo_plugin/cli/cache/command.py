"""`nat dynamo cache stats | clear | verify`, for a cache in Redis; one in memory ends with its process."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nat_dynamo_plugin.cache.responses import ResponseCache

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group("cache")
def cache() -> None:
    """Look at a response cache in Redis, clear it, or check what it holds."""


def _where(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which cache."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--encryption-key", metavar="env:NAME|file:PATH", help="Where the secret is, if it has one."),
        click.option(
            "--redis-url", metavar="URL|env:NAME|file:PATH", default="env:REDIS_URL", help="Default env:REDIS_URL."
        ),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A NAT config whose LLM has the cache, in place of --redis-url.",
        ),
    ):
        command = option(command)
    return command


@cache.command("stats")
@_where
def stats(config: Path | None, redis_url: str, encryption_key: str | None, as_json: bool) -> None:
    """Count entries, bytes and the tokens that they can save, by model and org."""
    one = _open(config, redis_url, encryption_key)
    counts: Counter[str] = Counter()
    models: Counter[str] = Counter()
    orgs: Counter[str] = Counter()
    ages: list[float] = []
    for _, entry in _guarded(lambda: list(one.entries())):
        if isinstance(entry, str):
            counts["unreadable"] += 1
            continue
        counts.update(
            entries=1,
            bytes=len(entry.answer),
            prompt_tokens=entry.prompt_tokens or 0,
            completion_tokens=entry.completion_tokens or 0,
        )
        models[entry.model] += 1
        orgs[entry.org or "-"] += 1
        ages.append(entry.age_s)
    told = {
        **{name: counts[name] for name in ("entries", "bytes", "prompt_tokens", "completion_tokens", "unreadable")},
        "oldest_s": round(max(ages, default=0.0), 1),
        "youngest_s": round(min(ages, default=0.0), 1),
        "models": dict(models.most_common()),
        "orgs": dict(orgs.most_common()),
    }
    _print(told, as_json)


@cache.command("clear")
@_where
@click.option("--model", help="Entries of this model only, as it was asked for.")
@click.option("--org", help="Entries of this org only; NAT_DYNAMO_ORG_KEY must be what it was.")
@click.option("--older-than", metavar="AGE", help="Entries that are older only, as 90s, 30m, 12h or 7d.")
def clear(
    config: Path | None,
    redis_url: str,
    encryption_key: str | None,
    as_json: bool,
    model: str | None,
    org: str | None,
    older_than: str | None,
) -> None:
    """Forget entries: all, or those that the options name."""
    from nat_dynamo_plugin.question.org import org_digest

    age = None if older_than is None else _seconds(older_than)
    one = _open(config, redis_url, encryption_key)
    digest = None if org is None else org_digest(org)
    _print({"cleared": _guarded(lambda: one.clear(model, digest, age))}, as_json)


@cache.command("verify")
@_where
@click.option("--delete", is_flag=True, help="Forget what can not be used.")
def verify(config: Path | None, redis_url: str, encryption_key: str | None, as_json: bool, delete: bool) -> None:
    """Read every entry; ends with 1 if one can not be used: foreign, corrupt, of another version or another secret."""
    from nat_dynamo_plugin.cli.cache.verifying import verified

    one = _open(config, redis_url, encryption_key)
    good, bad = _guarded(lambda: verified(one, delete=delete))
    _print({"good": good, "bad": len(bad), "why": dict(Counter(bad.values())), "deleted": delete}, as_json)
    if bad and not delete:
        raise SystemExit(1)


def _open(config: Path | None, redis_url: str, encryption_key: str | None) -> ResponseCache:
    """The cache that the options name."""
    from nat_dynamo_plugin.config.cache import CacheConfig

    try:
        if config is None:
            asked = CacheConfig(backend="redis", redis_url=redis_url, encryption_key=encryption_key)
        else:
            asked = _configured(config)
        return asked.model_copy(update={"backend": "redis"}).make()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _configured(path: Path) -> Any:
    """The cache of the first LLM in a config that has one in Redis."""
    from nat.utils.io.yaml_tools import yaml_load

    from nat_dynamo_plugin.config.cache import CacheConfig

    for llm in (yaml_load(path).get("llms") or {}).values():
        block = llm.get("cache") if isinstance(llm, dict) else None
        if isinstance(block, dict) and block.get("redis_url"):
            return CacheConfig.model_validate(block)
    raise click.ClickException(f"{path}: no LLM has a cache with a redis_url")


def _guarded(do: Callable[[], Any]) -> Any:
    from nat_dynamo_plugin.cache.store import StoreError

    try:
        return do()
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if match is None:
        raise click.UsageError(f"--older-than {text!r}: use a number with s, m, h or d behind it, as 12h")
    return float(match[1]) * _UNITS[match[2]]


def _print(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        said = ", ".join(f"{key} {count:,}" for key, count in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name.replace('_', ' '):18} {said if isinstance(said, str | bool) else f'{said:,}'}")
