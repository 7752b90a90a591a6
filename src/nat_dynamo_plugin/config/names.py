"""The names a config may use: a field's own, NAT 1.9's, and flat ones for what stands in a block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from nat_dynamo_plugin.config.block import Block, Location
from nat_dynamo_plugin.nearest import nearest_or_all, shown

# NAT 1.9's names of our fields.
_ALIASES = {
    "nvext_prefix_id_template": "prefix_template",
    "nvext_prefix_total_requests": "prefix_total_requests",
    "nvext_prefix_osl": "prefix_osl",
    "nvext_prefix_iat": "prefix_iat",
    "nvext_prediction_trie_path": "prefix_predictions",
    "prediction_trie_path": "prefix_predictions",
    "nvext_max_sensitivity": "max_sensitivity",
}
# NAT 1.9's fields that stock Dynamo has no use for. They are taken, so that a 1.9 config loads, and do nothing:
# `nvext.cache_control` is answered with 400 by Dynamo 1.6.0.
_OBSOLETE = frozenset({"nvext_cache_pin_type", "nvext_cache_control_mode"})
_OWN_PREFIXES = re.compile("(prefix|nvext|dynamo)_")
# A name without our prefix is an OpenAI argument, unless it is all but one of ours. Of the arguments of OpenAI and of
# the frameworks' clients none is nearer to a field than .8 (`top_k`, `min_tokens`).
_NEAR = 0.82


def has_space(field: FieldInfo) -> bool:
    """Whether NAT's optimizer knows values to try for a field (`OptimizableField`)."""
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and bool(extra.get("optimizable"))


@dataclass(frozen=True)
class Names:
    """The names of a model's fields, and how a config with others is read. Made from the model, once."""

    model: type[BaseModel]

    @cached_property
    def blocks(self) -> dict[str, type[Block]]:
        """The blocks by field."""
        return {
            name: kind
            for name, field in self.model.model_fields.items()
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, Block)
        }

    @cached_property
    def flat(self) -> dict[str, tuple[str, str]]:
        """Block and field by flat name."""
        return {flat: (name, field) for name, block in self.blocks.items() for flat, field in block.FLAT.items()}

    @cached_property
    def known(self) -> frozenset[str]:
        """All names that a config may use."""
        names = {*self.model.model_fields, *_ALIASES, *_OBSOLETE, *self.flat}
        for field in self.model.model_fields.values():
            if isinstance(field.validation_alias, AliasChoices):
                names |= {choice for choice in field.validation_alias.choices if isinstance(choice, str)}
        return frozenset(names)

    @cached_property
    def _in_blocks(self) -> dict[str, str]:
        return {field: f"{name}.{field}" for name, block in self.blocks.items() for field in block.model_fields}

    def read(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """What a user wrote, under the names of the model's fields.

        Raises:
            ValueError: for a name that is none, with the nearest, and for two names of one field.
        """
        self._check(data)
        read = {name: value for name, value in data.items() if name not in _OBSOLETE and name not in self.flat}
        for alias, name in _ALIASES.items():
            if alias in read:
                if name in read:
                    raise ValueError(f"{alias} and {name} are two names of one field; keep {name}")
                read[name] = read.pop(alias)
        for name, block in self.blocks.items():
            flat = {other: data[other] for other in block.FLAT if other in data}
            if flat:
                read[name] = _merged(name, block, flat, read.get(name))
        if isinstance(read.get("optimizable_params"), list):
            read["optimizable_params"] = [self._tunable(name) for name in read["optimizable_params"]]
        if isinstance(read.get("search_space"), Mapping):
            read["search_space"] = {self._tunable(name): space for name, space in read["search_space"].items()}
        self._check_spaces(read)
        return read

    def _check(self, names: Mapping[Any, Any]) -> None:
        for name, value in names.items():
            if not isinstance(name, str) or name in self.known:
                continue
            if name in self._in_blocks:
                hint = f"did you mean {self._in_blocks[name]}?"
            elif (prefix := _OWN_PREFIXES.match(name)) and name[prefix.end() :] in self.known:
                hint = f"did you mean {name[prefix.end() :]}?"
            elif prefix:
                hint = nearest_or_all(name, sorted(own for own in self.known if _OWN_PREFIXES.match(own)))
            elif near := get_close_matches(name, sorted(self.known), n=1, cutoff=_NEAR):
                hint = f"did you mean {near[0]}?"
            else:
                continue
            raise ValueError(f"{shown(name, value)}: there is no such field; {hint}")

    def _tunable(self, name: Any) -> Any:
        """The field that is tuned under a name: NAT passes over those that it does not know."""
        if name in self.flat:
            path = ".".join(self.flat[name])
            raise ValueError(
                f"{name} stands for {path}, which is tuned by its path: `search_space` of dynamo_sweep has room for it"
            )
        name = _ALIASES.get(name, name)
        if isinstance(name, str) and name not in self.model.model_fields:
            raise ValueError(
                f"{name!r}: there is no such field to tune; {nearest_or_all(name, self.model.model_fields)}"
            )
        return name

    def _check_spaces(self, read: Mapping[Any, Any]) -> None:
        """Refuse to tune what has no values to try: NAT passes over it, and may then tune nothing at all."""
        named, own = read.get("optimizable_params"), read.get("search_space")
        for name in named if isinstance(named, list) else ():
            field = self.model.model_fields.get(name)
            if not (field and has_space(field)) and name not in (own if isinstance(own, Mapping) else ()):
                raise ValueError(f"optimizable_params: {name} has no search space; give its values in search_space")

    def others(self, path: str) -> list[str]:
        """Further names under which a config may give the field at a path within the LLM, as `admission.idle`."""
        # The first of a field's flat names is worth the same; others are not, as `num_retries`, which is one more.
        same = {".".join(place): flat for flat, place in reversed(self.flat.items())}
        return [
            *(alias for alias, name in _ALIASES.items() if name == path),
            *([same[path]] if path in same else []),
            *(place for place, flat in same.items() if flat == path),
        ]

    def as_written(self, loc: Location, data: Any) -> Location:
        """Where the user wrote what is wrong at a place in the model."""
        names: Iterable[Any] = data if isinstance(data, Mapping) else ()
        for name in names:
            if name in self.flat and loc[:2] == self.flat[name]:
                return (name, *loc[2:])
            if name in _ALIASES and loc[:1] == (_ALIASES[name],):
                return (name, *loc[1:])
        return loc


def _merged(name: str, block: type[Block], flat: Mapping[str, Any], given: Any) -> Any:
    """A block with what its flat names say."""
    if isinstance(given, Block):
        given = given.model_dump(exclude_unset=True)
    if given is not None and not isinstance(given, Mapping):
        return given  # which pydantic refuses
    for other in flat:
        if block.FLAT[other] in (given or {}):
            place = f"{name}.{block.FLAT[other]}"
            raise ValueError(f"{other} and {place} are two names of one field; keep {place}")
    return {**(given or {}), **block.from_flat(flat)}
