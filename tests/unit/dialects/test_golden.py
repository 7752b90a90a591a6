"""Each provider's request as it is sent, and the usage of its answer in the normal form: a file each in `golden/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.dialects.test_dialects import a_plan

from nat_dynamo_plugin.config.provider_cache import ProviderCacheConfig
from nat_dynamo_plugin.dialects import BUILTIN, load_dialects
from nat_dynamo_plugin.dialects.cache_key import cache_key
from nat_dynamo_plugin.dialects.provider import ProviderDialect
from nat_dynamo_plugin.dialects.speaker import Speaker
from nat_dynamo_plugin.http.splice import edited, spliced
from nat_dynamo_plugin.question.org import org_digest, org_scope

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    text: str = request.param.read_text(encoding="utf-8")
    text = text.replace('"KEY"', json.dumps(cache_key("q 1", "acme"))).replace('"ORG"', json.dumps(org_digest("acme")))
    found: dict[str, Any] = json.loads(text)
    return found


def speaker_of(golden: dict[str, Any]) -> Speaker:
    options = ProviderCacheConfig(**golden["provider_cache"]).options(golden["model"])
    return Speaker(load_dialects([golden["dialect"]], options))


def test_the_request(golden: dict[str, Any]) -> None:
    raw = json.dumps(golden["request"]).encode()
    with org_scope("acme"):
        said = speaker_of(golden).say(a_plan())
    if said.edit is not None:
        raw = edited(raw, said.edit) or raw
    result = spliced(raw, said.members, said.encoded)
    assert result is not None
    assert json.loads(b"".join(result.parts)) == golden["body"]
    assert {name.decode(): value.decode() for name, value in said.headers} == golden["headers"]


def test_the_usage(golden: dict[str, Any]) -> None:
    [dialect] = speaker_of(golden).dialects
    usage = dialect.read_usage(golden["usage"])
    assert usage is not None
    found = {name: value for name, value in usage._asdict().items() if value not in (None, {})}
    assert found == golden["normal"]


def test_each_provider_has_one() -> None:
    spoken = {json.loads(path.read_text(encoding="utf-8"))["dialect"] for path in FILES}
    providers = {dialect.name for dialect in load_dialects(list(BUILTIN)) if isinstance(dialect, ProviderDialect)}
    assert spoken == providers


@pytest.mark.parametrize(
    "usage", [{}, {"prompt_tokens": "x"}, {"input_tokens": -1}, {"inputTokens": None}, {"cost": "1"}]
)
@pytest.mark.parametrize("name", list(BUILTIN))
def test_odd_usage_says_nothing_and_fails_nothing(name: str, usage: dict[str, Any]) -> None:
    [dialect] = load_dialects([name])
    found = dialect.read_usage(usage)
    assert found is None or not any(found[:3])
