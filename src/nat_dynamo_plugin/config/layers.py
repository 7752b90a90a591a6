"""`layers:` - what a user puts between caller and server, each by name, with its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_serializer, model_validator

from nat_dynamo_plugin.config.block import Discreet
from nat_dynamo_plugin.nearest import hidden, nearest_or_all, shown

ENTRY_POINT_GROUP = "nat_dynamo_plugin.layers"
"""Where a package names its layers: each entry point is a class or function that makes one, with its options."""


def layer_factory(name: str) -> Callable[..., Any]:
    """What makes a layer: by the name of its entry point, or as `package.module:Class`.

    Raises:
        ValueError: for one that is not there, naming the nearest, or that can not be imported.
    """
    entry = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)), None)
    if entry is None:
        if ":" not in name:
            known = sorted(entry_points(group=ENTRY_POINT_GROUP).names)
            raise ValueError(f"layers: {name!r} is not installed; {nearest_or_all(name, known)}")
        entry = EntryPoint(name, name, ENTRY_POINT_GROUP)
    try:
        factory: Any = entry.load()
    except Exception as error:  # whatever a foreign module raises
        raise ValueError(f"layers: {name!r} can not be imported: {type(error).__name__}: {error}") from error
    if not callable(factory):
        raise ValueError(f"layers: {name!r} is no class or function that makes a layer")
    return factory  # type: ignore[no-any-return]


class LayerConfig(Discreet):
    """One layer of a user's own. In YAML: its name, or its name with its options, `{name: {option: value}}`."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: str = Field(description="An entry point of the group nat_dynamo_plugin.layers, or package.module:Class.")
    options: dict[str, Any] = Field(default_factory=dict, description="Its options, handed over by keyword.")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"name": data}
        if isinstance(data, Mapping) and len(data) == 1 and "name" not in data:
            [(name, options)] = data.items()
            return {"name": name, "options": {} if options is None else options}
        return data

    @field_validator("name")
    @classmethod
    def _there_is_such_a_layer(cls, value: str) -> str:
        try:
            layer_factory(value)
        except ValueError as error:
            raise ValueError(hidden(str(error))) from None  # what stands there may be a key
        return value

    @model_serializer
    def _short_form(self) -> str | dict[str, Any]:
        return {self.name: self.options} if self.options else self.name

    def _settle(self) -> None:
        try:
            signature = inspect.signature(layer_factory(self.name))
        except (TypeError, ValueError):
            return  # made in C, or the like: it will say itself what it takes
        try:
            signature.bind(**self.options)
        except TypeError as error:
            known = [name for name, one in signature.parameters.items() if one.kind is not one.VAR_KEYWORD]
            wrong = [name for name in self.options if name not in known]
            hint = f"{shown(wrong[0], self.options[wrong[0]])}: {nearest_or_all(wrong[0], known)}" if wrong else error
            raise ValueError(f"layers: {self.name!r} does not take its options: {hint}") from None

    def make(self) -> Any:
        """A new layer."""
        return layer_factory(self.name)(**self.options)
