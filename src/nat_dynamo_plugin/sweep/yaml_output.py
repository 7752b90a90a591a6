"""Write the tuned values into the user's own YAML: comments, order and `${VARIABLES}` stay as they are."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.anchor import Anchor
from ruamel.yaml.util import load_yaml_guess_indent

from nat_dynamo_plugin.config.model import DynamoModelConfig, other_names
from nat_dynamo_plugin.secrets import with_variables
from nat_dynamo_plugin.sweep.space import Values, places, value_at

_FILE = "file://"


def with_values(data: dict[str, Any], config: BaseModel, values: Values) -> dict[str, Any]:
    """Set values in a config's plain data, in place, under the name that is used there for a field.

    Args:
        data: a config as it is written, which is changed.
        config: what NAT made of it.
        values: by path; those that it has already change nothing.
    """
    for path, value in values.items():
        if value_at(config, path) == value:
            continue  # it says so already, or leaves it to the default
        *above, name = _place(data, config, path)
        holder: Any = data
        for part in above:
            inner = holder.get(part)
            if not isinstance(inner, Mapping):
                inner = holder[part] = {}
            elif _is_shared(holder, part):
                inner = holder[part] = _unshared(inner)
            holder = inner
        holder[name] = value
    return data


def _is_shared(holder: Any, part: str) -> bool:
    """Whether a mapping in ruamel's data has an anchor, or came in by a merge (`<<`), so that others see it too."""
    anchor = getattr(holder[part], "anchor", None)
    if anchor is None:
        return False  # plain data, in which NAT has made all anchors copies
    return anchor.value is not None or part not in dict(holder.non_merged_items())


def _unshared(node: Any) -> Any:
    """A copy of a mapping in ruamel's data, with its comments and without its anchor."""
    copied = deepcopy(node)
    if hasattr(copied, Anchor.attrib):
        delattr(copied, Anchor.attrib)
    return copied


def _place(data: Mapping[str, Any], config: BaseModel, path: str) -> list[str]:
    """Where a value stands in the data, under whichever of its names, or is to stand."""
    steps = places(config, path)
    parts = [name for _, name in steps]
    found = [parts, *([*parts[:-1], alias] for alias in _aliases(*steps[-1]))]
    for k, (holder, _) in enumerate(steps):
        if isinstance(holder, DynamoModelConfig):
            found += [[*parts[:k], *other.split(".")] for other in other_names(".".join(parts[k:]))]
    return next((place for place in found if _has(data, place)), parts)


def _has(data: Any, place: list[str]) -> bool:
    for part in place:
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def _aliases(owner: Any, name: str) -> list[str]:
    if not isinstance(owner, BaseModel):
        return []
    names: list[str] = []
    field = type(owner).model_fields[name]
    for alias in (field.alias, field.validation_alias):
        if isinstance(alias, str):
            names.append(alias)
        elif isinstance(alias, AliasChoices):
            names += [choice for choice in alias.choices if isinstance(choice, str)]
    return names


def tuned_text(text: str, config: BaseModel, values: Values, *, source: Path, target: Path) -> str:
    """A config file's text with other values, for a file in another folder.

    What refers to files beside the config (`base`, `file://`) is rewritten to be found from there. Everything else
    stays as it is; long lines, quotes, comments and ends of lines too. A secret in clear becomes the name of a
    variable. What is changed and stands under an anchor becomes a copy of its own.

    Args:
        text: as it is in the file, ends of lines included.
        config: what NAT made of it.
        values: by path.
        source: the file's folder.
        target: the folder of the file that it is for.
    """
    windows = "\r\n" in text
    text = text.replace("\r\n", "\n")
    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=indent or 2, offset=offset or 0)
    data = yaml.load(text)
    if source.resolve() != target.resolve():
        _move(data, source.resolve(), target.resolve())
    with_values(data, config, values)
    out = io.StringIO()
    yaml.dump(data, out)
    written = with_variables(out.getvalue())
    return written.replace("\n", "\r\n") if windows else written


def _move(data: Any, source: Path, target: Path) -> None:
    if isinstance(data.get("base"), str):
        data["base"] = _from_there(data["base"], source, target)

    def walk(node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping):
                walk(value)
            elif isinstance(value, str) and value.startswith(_FILE):
                node[key] = _FILE + _from_there(value[len(_FILE) :], source, target)

    walk(data)


def _from_there(name: str, source: Path, target: Path) -> str:
    return name if Path(name).is_absolute() or "${" in name else os.path.relpath(source / name, target)
