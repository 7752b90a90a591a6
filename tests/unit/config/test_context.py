"""What `context:` takes, what it refuses, and where its layer stands."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.context.cuts import Window
from nat_dynamo_plugin.layers.context import ContextLayer


def config(**context: Any) -> DynamoModelConfig:
    return DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1", context=context)


def test_what_is_not_given_has_its_default() -> None:
    block = config(max_tokens=8000).context
    assert block is not None and isinstance(block.layer(), ContextLayer)
    assert (block.keep, block.compact_to, block.summary) == (4, 0.5, None)
    assert DynamoModelConfig(model_name="m", base_url="http://127.0.0.1:1/v1").context is None


def test_the_layer_has_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("nat_dynamo_plugin.layers.context.ContextLayer", lambda *given: seen.append(given))
    block = config(max_tokens=8000, keep=2, compact_to=0.25, summary="json:dumps").context
    assert block is not None
    block.layer()
    [(window, summary)] = seen
    assert window == Window(8000, 2, 0.25) and summary([1]) == "[1]"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 9, "keep": 0}, "keep"),
        ({"max_tokens": 9, "compact_to": 1}, "less than 1"),
        ({"max_tokens": 9, "compact_to": 0}, "greater than 0"),
        ({"max_tokens": 9, "summary": "no_such_module:f"}, "package.module:function"),
        ({"max_tokens": 9, "summary": "json"}, "no function"),
        ({"max_tokens": 9, "keeps": 2}, "keep"),
    ],
)
def test_what_can_not_act_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        config(**fields)
