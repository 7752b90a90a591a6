"""Whose call it is: the org (tenant, customer, team) that a question is asked for.

What is kept apart by org (KV cache, provider caches, limits, cost, the response cache) never sees its name: an HMAC
leaves the process, so that neither a server nor a shared store learns who the customers are.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from nat_dynamo_plugin.question.scoped import Scoped

ORG_KEY = "NAT_DYNAMO_ORG_KEY"
"""A secret that the names of orgs are hashed with, for names that could be guessed."""

_DIGEST_CHARS = 32

_org: Scoped[str] = Scoped("dynamo_org")


def current_org() -> str | None:
    """The org that was set in this context, in clear; never to be sent or stored."""
    entry = _org.get()
    return None if entry is None else entry.value


@contextmanager
def org_scope(org: str) -> Iterator[None]:
    """Make all LLM calls in this block for an org. Scopes nest.

    Raises:
        ValueError: if it is no text, or an empty one.
    """
    if not isinstance(org, str) or not org.strip():
        raise ValueError(f"org={org!r} is not allowed: use a non-empty string")
    entry, token = _org.enter(org.strip())
    try:
        yield
    finally:
        _org.leave(entry, token)


def org_digest(org: str) -> str:
    """What stands for an org outside this process: 32 hexadecimal digits of HMAC-SHA256, keyed by `ORG_KEY`.

    The same in all processes that have the same key in their environment.
    """
    return _digest(org, os.environ.get(ORG_KEY, ""))


@lru_cache(maxsize=4096)
def _digest(org: str, key: str) -> str:
    message = b"nat-dynamo-plugin org\0" + org.encode("utf-8", "surrogatepass")
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()[:_DIGEST_CHARS]
