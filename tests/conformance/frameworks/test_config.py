"""What a config's fields become in each framework's requests; the requests are caught by a scripted server."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.telemetry.record import CallRecord

from .conftest import Client
from .drivers import Adk, Agno, Driver, make_client
from .servers import Exchange, Fault, FaultServer
from .test_clients import ask

NEMOTRON = "nvidia/llama-3.1-nemotron-nano-8b-v1"


@pytest.fixture
def catch(driver: Driver, faults: Callable[..., FaultServer]) -> Callable[[DynamoModelConfig | dict[str, Any]], Any]:
    """Makes one call with a config and gives the request."""

    async def make(fields: dict[str, Any]) -> Exchange:
        server = faults(Fault(400))
        config = DynamoModelConfig(**{"base_url": server.base_url, "model_name": "some-model", **fields})
        async with make_client(driver, config) as llm:
            with pytest.raises(Exception):  # noqa: B017
                await ask(driver, llm, "Is anybody there?")
        return server.exchanges[0]  # as it is refused, it is sent once more without our fields

    return make


async def test_an_unknown_field_is_refused_by_name(driver: Driver, client: Client) -> None:
    with pytest.raises(ValueError, match=r"temperatur=0\.5: .* did you mean temperature\?"):
        async with client(temperatur=0.5):
            pass


async def test_a_config_that_the_optimizer_has_written_makes_the_same_request(
    driver: Driver, catch: Callable[..., Any]
) -> None:
    fields: dict[str, Any] = {"temperature": 0.5, "max_tokens": 9, "max_retries": 0}
    written = DynamoModelConfig(model_name="some-model", **fields).model_dump(by_alias=False)
    first = await catch(fields)
    again = await catch({name: value for name, value in written.items() if name not in ("base_url", "type")})
    assert again.body == first.body


async def test_no_field_of_ours_reaches_the_request(driver: Driver, catch: Callable[..., Any]) -> None:
    ours = {
        "prefix_template": "mine-{uuid}",
        "prefix_total_requests": 3,
        "prefix_osl": "LOW",
        "prefix_iat": "HIGH",
        "max_sensitivity": 5,
        "connect_timeout": 3.0,
        "pool_timeout": 4.0,
        "request_timeout": 5.0,
        "max_connections": 6,
        "verify_ssl": False,
        "num_retries": 1,
        "do_auto_retry": False,
        "retry_on_status_codes": [503],
    }
    plain = await catch({"max_retries": 0})
    exchange = await catch(ours)
    assert exchange.body.keys() == plain.body.keys()
    assert exchange.headers.keys() == plain.headers.keys()


async def test_thinking_reaches_the_prompt_as_for_openai(
    driver: Driver, catch: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        exchange = await catch({"model_name": NEMOTRON, "thinking": True, "max_retries": 0})
    assert exchange.body["model"] == NEMOTRON
    system = [message["content"] for message in exchange.body["messages"] if message["role"] == "system"]
    if isinstance(driver, Adk):
        assert "has no effect in Google ADK" in caplog.text
        assert system == []
    else:
        assert "detailed thinking on" in str(system)
        [plain] = [message["content"] for message in exchange.body["messages"] if message["role"] == "user"]
        assert "Is anybody there?" in str(plain)


async def test_a_server_without_keys_needs_none(driver: Driver, catch: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert (await catch({"max_retries": 0})).headers["authorization"] == "Bearer unused"
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    assert (await catch({"max_retries": 0})).headers["authorization"] == "Bearer from-the-environment"


@pytest.mark.parametrize("driver", [Agno], indirect=True)
async def test_a_copy_of_agnos_model_still_calls_through_our_client(
    client: Client, driver: Agno, records: list[CallRecord]
) -> None:
    async with client() as llm:
        copied = copy.deepcopy(llm)
        await driver.ask(copied, "Is anybody there?")
        driver.ask_sync(copied, "Is anybody there?")
    assert [record.status for record in records] == [200, 200]
