"""What the provider hands to clients; the embedded Dynamo itself is tested in tests/local and tests/conformance."""

from __future__ import annotations

import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.service import remote_service, running_service, service_of

KEY = "sk-not-a-real-key"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def config(**fields: object) -> DynamoModelConfig:
    return DynamoModelConfig(**{"model_name": "m", "base_url": "http://127.0.0.1:1/v1", **fields})


async def test_clients_of_one_build_share_planner_and_memory() -> None:
    c = config()
    async with running_service(c) as service:
        assert service_of(c) is service
        assert service.asking.planner is not None and service.asking.workload is None
    assert c.running_service is None


async def test_a_config_nobody_started_is_served_all_the_same() -> None:
    c = config()
    assert service_of(c) is service_of(c)
    assert service_of(c).base_url == "http://127.0.0.1:1/v1"


def test_an_embedded_dynamo_that_nobody_started_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="is not running"):
        service_of(DynamoModelConfig(local={}))


def test_the_environment_gives_url_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
    service = remote_service(config(base_url=None))
    assert (service.base_url, service.api_key) == ("http://127.0.0.1:2/v1", KEY)
    assert remote_service(config(api_key="sk-of-the-config")).api_key == "sk-of-the-config"


def test_no_key_in_what_is_printed() -> None:
    assert KEY not in repr(remote_service(config(api_key=KEY)))
    assert KEY not in repr(config(api_key=KEY))
