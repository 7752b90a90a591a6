from __future__ import annotations

import pytest

from nat_dynamo_plugin.config.model import DynamoModelConfig
from nat_dynamo_plugin.dialects import BUILTIN, DEFAULT_WIRE, load_dialects
from nat_dynamo_plugin.dialects.origins import HOSTS, UNKNOWN, dialects_for, provider_at
from nat_dynamo_plugin.service import make_service


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("https://api.openai.com", "openai"),
        ("https://eu.api.openai.com", "openai"),
        ("https://me.openai.azure.com", "azure"),
        ("https://api.anthropic.com:443", "anthropic"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "bedrock"),
        ("https://api.fireworks.ai", "fireworks"),
        ("https://api.x.ai", "xai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://generativelanguage.googleapis.com", "gemini"),
        ("https://openrouter.ai", "openrouter"),
        # Servers that refuse fields they do not know, or that are not who their names say.
        ("https://integrate.api.nvidia.com", None),
        ("https://api.groq.com", None),
        ("https://api.openai.com.evil.example", None),
        ("https://evilapi.openai.com.example", None),
        ("https://notapi.openai.com", None),
        ("http://api.openai.com", None),
        ("http://127.0.0.1:8000", None),
        ("https://[", None),
    ],
)
def test_a_provider_is_known_by_its_address_alone(origin: str, name: str | None) -> None:
    assert provider_at(origin) == name


def test_all_that_are_listed_are_there() -> None:
    assert set(HOSTS.values()) | set(UNKNOWN) <= set(BUILTIN)
    assert [dialect.name for dialect in load_dialects(list(BUILTIN))] == list(BUILTIN)


@pytest.mark.parametrize(
    ("names", "origin", "is_dynamo", "chosen", "spoken"),
    [
        (DEFAULT_WIRE, "http://dynamo:8000", False, False, ["dynamo", "prefix_headers"]),
        (DEFAULT_WIRE, "https://api.openai.com", False, False, ["openai"]),
        (DEFAULT_WIRE, "https://api.openai.com", False, True, ["dynamo", "prefix_headers"]),
        (["auto"], "https://api.x.ai", False, True, ["xai"]),
        (["auto"], "http://unknown:8000", False, True, ["session_headers", "prefix_headers"]),
        (["auto", "telemetry"], "http://127.0.0.1:1", True, True, ["dynamo", "prefix_headers", "telemetry"]),
        (["openai"], "http://gateway:1", False, True, ["openai"]),
    ],
)
def test_what_is_spoken(names: list[str], origin: str, is_dynamo: bool, chosen: bool, spoken: list[str]) -> None:
    assert dialects_for(names, origin, DEFAULT_WIRE, is_dynamo=is_dynamo, chosen=chosen) == spoken


def test_a_config_may_name_one_dialect_as_a_text() -> None:
    assert DynamoModelConfig(model_name="m", base_url="http://x/v1", prefix_wire="openai").prefix_wire == ["openai"]
    with pytest.raises(ValueError, match="did you mean openai"):
        DynamoModelConfig(model_name="m", base_url="http://x/v1", prefix_wire="opnai")


def test_an_unknown_server_gets_no_field_in_a_body() -> None:
    service = make_service(DynamoModelConfig(model_name="m", base_url="http://x/v1", prefix_wire="auto"))
    assert service.planner is not None
    said = service.planner.next_turn().said
    assert not said.members and said.edit is None
    assert {name for name, _ in said.headers} >= {b"x-dynamo-session-id", b"x-prefix-id"}
