"""The pages on providers and on cost are true: their YAML loads, and their clients do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from tests.conformance.providers.scripted import serving
from tests.conformance.providers.test_sdks import messages

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.evaluators.register import METRICS
from nat_dynamo_plugin.service import make_service

DOCS = Path(__file__).parents[3] / "docs"
TEXT = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("cost", "providers")}


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT[page], flags=re.DOTALL)


@pytest.mark.parametrize("text", [*blocks("yaml", "cost"), *blocks("yaml", "providers")])
def test_every_yaml_block_is_a_config(text: str) -> None:
    for llm in yaml.safe_load(text).get("llms", {}).values():
        assert llm.pop("_type") == "dynamo"
        make_service(DynamoModelConfig(**llm))
    kinds = {config.static_type() for config in METRICS}
    assert {one["_type"] for one in yaml.safe_load(text).get("eval", {}).get("evaluators", {}).values()} <= kinds


def test_the_anthropic_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(messages) as server:
        send = httpx2.HTTPTransport.handle_request

        def to_loopback(self: Any, request: httpx2.Request) -> httpx2.Response:
            request.url = httpx2.URL(server.url).copy_with(path=request.url.path)
            return send(self, request)

        monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", to_loopback)
        names: dict[str, Any] = {}
        exec(blocks("python", "providers")[0], names)
        ask: Any = {"role": "user", "content": "And in Rome?"}
        answer = names["client"].messages.create(model="claude-sonnet-5", max_tokens=9, messages=[ask])
        assert answer.usage.cache_read_input_tokens == 1500
        assert server.asked[0].body["cache_control"] == {"type": "ephemeral"}


def test_the_boto3_client_has_the_hook() -> None:
    names: dict[str, Any] = {}
    exec(blocks("python", "providers")[1], names)
    point = {"cachePoint": {"type": "default", "ttl": "1h"}}
    given = {
        "modelId": "anthropic.claude-sonnet-5-v1:0",
        "messages": [{"role": "user", "content": [{"text": "x" * 9999}]}],
    }
    [(_, changed)] = names["client"].meta.events.emit(
        "provide-client-params.bedrock-runtime.Converse", params=given, model=None, context={}
    )
    assert changed["messages"][0]["content"][-1] == point


def test_the_scopes() -> None:
    exec(blocks("python", "providers")[2], {})
