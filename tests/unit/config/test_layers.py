"""The `layers` list: names, options, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from nat_dynamo_plugin.config import layers
from nat_dynamo_plugin.config.model import DynamoModelConfig


@dataclass
class Stamp:
    header: str = "x-stamp"
    times: int = 1


def any_options(**options: Any) -> dict[str, Any]:
    return options


@pytest.fixture(autouse=True)
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else's, with a layer at an entry point and one without."""
    module = ModuleType("foreign_layers")
    module.__dict__.update(Stamp=Stamp, any_options=any_options, number=5)
    monkeypatch.setitem(sys.modules, "foreign_layers", module)
    installed = EntryPoints([EntryPoint("stamp", "foreign_layers:Stamp", layers.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(layers, "entry_points", installed.select)


def config(*given: Any) -> DynamoModelConfig:
    return DynamoModelConfig(model_name="m", layers=list(given))


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("stamp", Stamp()),
        ({"stamp": None}, Stamp()),
        ({"stamp": {"times": 3}}, Stamp(times=3)),
        ({"name": "stamp", "options": {"times": 3}}, Stamp(times=3)),
        ("foreign_layers:Stamp", Stamp()),
        ({"foreign_layers:any_options": {"a": 1}}, {"a": 1}),
    ],
)
def test_a_layer_is_made_by_name(given: Any, made: Any) -> None:
    [layer] = config(given).layers
    assert layer.make() == made
    assert layer.make() is not layer.make()


def test_their_order_stays() -> None:
    assert [layer.name for layer in config("stamp", "foreign_layers:any_options", "stamp").layers] == [
        "stamp",
        "foreign_layers:any_options",
        "stamp",
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("stanp", r"layers: 'stanp' is not installed; did you mean stamp\?"),
        ("other", "layers: 'other' is not installed; known are stamp"),
        ("no_such_module:Layer", "'no_such_module:Layer' can not be imported: ModuleNotFoundError"),
        ("foreign_layers:Stamb", "'foreign_layers:Stamb' can not be imported: AttributeError"),
        ("foreign_layers:number", "no class or function"),
        ({"stamp": {"time": 3}}, r"'stamp' does not take its options: time=3: did you mean times\?"),
        ({"stamp": {"api_key": "sk-1234567890"}}, r"does not take its options: api_key='\*\*\*': known are"),
        ({"stamp": {}, "other": {}}, "layers"),
        (5, "layers"),
    ],
)
def test_a_wrong_one_is_refused_when_the_config_is_read(given: Any, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(given)


def test_a_dump_is_what_the_user_wrote() -> None:
    given = ["stamp", {"stamp": {"times": 3}}]
    first = config(*given)
    assert first.model_dump()["layers"] == first.model_dump(mode="json")["layers"] == given
    assert DynamoModelConfig.model_validate(first.model_dump()) == first


def test_options_with_a_secret_are_not_printed() -> None:
    assert "hunter2" not in repr(config({"foreign_layers:any_options": {"password": "hunter2"}}))


def test_a_key_in_the_place_of_a_name_is_not_told_back() -> None:
    with pytest.raises(ValidationError) as caught:
        layers.LayerConfig.model_validate("sk-canary-in-the-wrong-place")
    assert "name" in str(caught.value) and "canary" not in str(caught.value)
