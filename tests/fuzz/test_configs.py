"""Configs near those that are right: each is taken, or refused in words that name a field and no key."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin import DynamoModelConfig, secrets

from .examples import examples, misspelt, odd_value, places

KEY = "sk-canary-of-the-config"
PASSWORD = "canary-password"
BASES: tuple[dict[str, Any], ...] = (
    {"base_url": "http://dynamo:8000/v1", "model_name": "m", "api_key": KEY},
    {"base_url": f"http://ann:{PASSWORD}@dynamo:8000/v1", "model_name": "m", "api_key": [KEY, f"{KEY}-2"]},
    {
        "base_url": "http://dynamo:8000/v1",
        "model_name": "m",
        "api_key": f"{KEY}\n",
        "temperature": 0.5,
        "prefix_template": "q-{uuid}",
        "prefix_total_requests": 4,
        "prefix_osl": "LOW",
        "prefix_iat": 20,
        "max_sensitivity": 10,
        "prefix_wire": ["dynamo", "annotations"],
        "cache_salt": "salt",
        "max_active_prefixes": 4,
        "prefix_idle": 3.0,
        "request_timeout": 30,
        "max_retries": 2,
        "call_timeout": 60,
        "on_outage": "fail",
    },
    {
        "base_url": "http://dynamo:8000/v1",
        "model_name": "m",
        "api_key": KEY,
        "admission": {"max_active_prefixes": "auto", "idle": 2, "max_wait": 3, "max_concurrency": 8},
        "retry": {"max_retries": 2, "on_status": [429, "5xx"], "on_errors": ["slow down"], "budget": 0.5},
        "connection": {"connect_timeout": 1, "read_timeout": 2, "engine": "httpx", "http2": False},
        "breaker": {"on_outage": "wait", "max_wait": 5, "failure_rate": 0.5, "min_calls": 3, "probes": 2},
        "deadlines": {"call": 10, "question": 20},
        "layers": [],
    },
    {
        "local": {"workers": 2, "kv_blocks": 512, "block_size": 16, "speedup": 2.0, "router_mode": "kv"},
        "max_tokens": 64,
        "prefix_total_requests": "auto",
    },
)


def changed(dice: random.Random, config: dict[str, Any]) -> list[str]:
    """Change a config in place; the names that were touched."""
    touched = []
    for _ in range(dice.randrange(1, 4)):
        container, key = dice.choice(places(config) or [(config, "model_name")])
        touched.append(str(key))
        held = container[key]
        match dice.randrange(5) if isinstance(container, dict) else 0:
            case 0:
                container[key] = odd_value(dice)
            case 1:
                del container[key]
            case 2:
                touched.append(name := misspelt(dice, str(key)))
                container[name] = container.pop(key)
            case 3:
                container[key] = dice.choice(([held], {"value": held}, str(held), (held,), {"a": {"b": held}}))
            case _:
                # What stands elsewhere in this config, the key included.
                container[key] = copy.deepcopy((lambda at: at[0][at[1]])(dice.choice(places(config))))
    return touched


def said_of(error: ValidationError) -> str:
    """All that an error says, whoever asks it."""
    return f"{error}\n{error!r}\n{error.errors(include_url=False)}"


def test_a_config_is_taken_or_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, dice in examples():
        monkeypatch.setattr(secrets, "known", secrets.Secrets())  # or the first example's key would be known for ever
        config = copy.deepcopy(dice.choice(BASES))
        touched = changed(dice, config)
        try:
            said = repr(DynamoModelConfig(**config))
        except ValidationError as error:
            said = said_of(error)
            fields = {part for one in error.errors() for part in map(str, one["loc"])}
            named = fields | {field for field in (*touched, *config) if field in said}
            assert named, f"example {name}: {config} is refused without a field's name: {said}"
        except Exception as error:
            raise AssertionError(f"example {name}: {config} raises {error!r}") from error
        assert KEY not in said and PASSWORD not in said, f"example {name}: {config} is told back: {said}"
