"""`cache:` - answers that are given again instead of asking the server."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.keys import secret_of
from nat_dynamo_plugin.config.values import Seconds, number
from nat_dynamo_plugin.nearest import hidden

if TYPE_CHECKING:
    from nat_dynamo_plugin.cache.responses import ResponseCache, Settings
    from nat_dynamo_plugin.cache.store import Store

logger = logging.getLogger(__name__)

_caches: weakref.WeakValueDictionary[tuple[Any, ...], ResponseCache] = weakref.WeakValueDictionary()
"""Those in use, by config; LLMs of one config share one."""


class SemanticConfig(BaseModel):
    """Whether almost equal questions are answered with one answer."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    mode: Literal["shadow", "serve"] = Field(
        default="shadow",
        description="shadow: give nothing, and report what would have been right and wrong. serve: give answers while "
        "the error is shown to be below max_error (default shadow).",
    )
    max_error: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01, description="Largest error rate, 0 to 1, that 95 % confidence may leave (default 0.01)."
    )
    audit: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="Share of the answers given that is asked for and compared all the same (default 0.1)."
    )
    ttl: Seconds = Field(default=86_400.0, description="Seconds for which an answer is given again (default 86400).")


class CacheConfig(Block):
    """What is kept of answers, where, and for whom. `cache: {}` keeps them in memory."""

    NAME: ClassVar = "cache"

    backend: Literal["auto", "memory", "redis"] = Field(
        default="auto",
        description="memory (of this process), redis (an error at start if it can not be used), or auto: redis if "
        "redis_url is given and answers, else memory; the log says which (default auto).",
    )
    redis_url: str | None = Field(
        default=None,
        description="redis://, rediss:// or unix:// URL of a Redis or Valkey, or env:NAME or file:/path of one "
        "(default: none).",
    )
    exact_ttl: Seconds = Field(default=3600.0, description="Seconds for which an answer is given again (default 3600).")
    max_entries: Annotated[int, number()] = Field(
        default=10_000, description="Most answers in memory; the least recently used make room (default 10000)."
    )
    max_bytes: Annotated[int, number(least=1024)] = Field(
        default=268_435_456, description="Most bytes in memory (default 268435456, 256 MiB)."
    )
    max_entry_bytes: Annotated[int, number(least=1024)] = Field(
        default=1_048_576, description="Longest answer that is kept, in bytes (default 1048576, 1 MiB)."
    )
    streams: bool = Field(
        default=True, description="Also keep the answers of streamed calls, and give answers as streams (default true)."
    )
    deterministic_only: bool = Field(
        default=True,
        description="Leave calls alone whose answer is drawn at random: temperature above 0, or none, and no seed "
        "(default true).",
    )
    single_flight: bool = Field(
        default=True, description="Send one of equal calls that come at once; the others wait for it (default true)."
    )
    max_wait: Seconds = Field(
        default=60.0,
        description="Most seconds that a call waits for an equal one; twice the 95th percentile of what calls take, if "
        "that is less (default 60).",
    )
    redis_timeout: Annotated[float, Field(gt=0, le=1.0)] = Field(
        default=0.05, description="Seconds that a call waits for Redis, at most 1 (default 0.05)."
    )
    ignore: list[str] = Field(
        default_factory=list,
        description="Further fields of requests that are not to count, as [seed], besides those that never change an "
        "answer (default: none).",
    )
    key_headers: list[str] = Field(
        default_factory=list,
        description="Further request headers that choose the answer; openai-*, anthropic-*, x-payload-*, api-version "
        "and x-tenant-id always count (default: none).",
    )
    aliases: list[str] = Field(
        default_factory=list,
        description="Model names that stand for whatever model answers; under another name an answer is kept only if "
        "that model gave it (default: none).",
    )
    semantic: SemanticConfig | None = Field(
        default=None, description="Also answer questions in almost the same words (default: off)."
    )
    encryption_key: str | None = Field(
        default=None,
        description="env:NAME or file:/path of a secret that entries are encrypted with (AES-256-GCM; needs the "
        "package cryptography) (default: none).",
    )

    @field_validator("redis_url")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        allowed = ("redis://", "rediss://", "unix://", "env:", "file:")
        if value is None or not value.strip():
            return None
        if not value.startswith(allowed):
            raise ValueError(f"use {', '.join(allowed)} at its beginning, not {hidden(value)!r}")
        return value

    @field_validator("encryption_key")
    @classmethod
    def _names_a_secret(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("env:", "file:")):
            raise ValueError("name an environment variable or a file with the secret, as env:NAME or file:/path")
        return value

    def _settle(self) -> None:
        if self.backend == "redis" and self.redis_url is None:
            raise ValueError("cache: backend redis needs redis_url")

    @property
    def settings(self) -> Settings:
        """What the cache is told."""
        from nat_dynamo_plugin.cache.responses import Settings

        return Settings(
            ttl_s=self.exact_ttl,
            max_entry_bytes=self.max_entry_bytes,
            max_wait_s=self.max_wait,
            streams=self.streams,
            single_flight=self.single_flight,
            deterministic_only=self.deterministic_only,
            ignore=tuple(self.ignore),
            aliases=tuple(self.aliases),
            **({} if self.semantic is None else {"near_ttl_s": self.semantic.ttl}),
        )

    def make(self) -> ResponseCache:
        """The cache; the same one as long as an LLM of this config uses it.

        Raises:
            ValueError: Redis can not be used, or a variable, a file or a package is not there.
        """
        from nat_dynamo_plugin.cache.entry import AesSeal
        from nat_dynamo_plugin.cache.figures import Figures
        from nat_dynamo_plugin.cache.responses import ResponseCache
        from nat_dynamo_plugin.cache.trust import Trust

        url = None if self.redis_url is None else secret_of("cache.redis_url", self.redis_url)
        known = (self.model_dump_json(), url)
        found = _caches.get(known)
        if found is not None:
            return found
        try:
            secret = None if self.encryption_key is None else secret_of("cache.encryption_key", self.encryption_key)
            seal = None if secret is None else AesSeal(secret)
        except ImportError:
            raise ValueError(
                "cache.encryption_key needs cryptography: pip install 'nat-dynamo-plugin[cache]'"
            ) from None
        figures = Figures()
        near = self.semantic
        trust = None if near is None else Trust(near.mode, near.max_error, near.audit)
        cache = ResponseCache(self._store(url, figures), self.settings, seal, figures, trust)
        return _caches.setdefault(known, cache)

    def _store(self, url: str | None, figures: Any) -> Store:
        from nat_dynamo_plugin.cache.memory import MemoryStore
        from nat_dynamo_plugin.cache.redis_store import RedisStore
        from nat_dynamo_plugin.cache.store import StoreError

        if self.backend != "memory" and url is not None:
            try:
                store = RedisStore(url, self.redis_timeout, lambda: figures.count("store_errors", "write"))
                store.check()
            except StoreError as error:
                if self.backend == "redis":
                    raise ValueError(f"cache: {error}") from None
                logger.warning("The response cache is in memory: %s", error)
            else:
                logger.info("The response cache is in Redis at %s", store.where)
                return store
        else:
            logger.info("The response cache is in memory")
        return MemoryStore(self.max_entries, self.max_bytes, lambda: figures.count("evictions"))
