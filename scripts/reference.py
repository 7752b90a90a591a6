"""Write docs/reference.md: all that a user can set and read, from the code that reads it.

    python scripts/reference.py            write it
    python scripts/reference.py --check    end with 1 if it is not what would be written

Nothing here is a list of its own: fields come from pydantic's models, commands from click, components from NAT's
registry, metrics from the exporters, environment variables from the places that read them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from difflib import unified_diff
from enum import Enum
from pathlib import Path
from typing import Any

import click
from nat.cli.type_registry import GlobalTypeRegistry
from nat.data_models.optimizable import SearchSpace
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import nat_dynamo_plugin.register  # noqa: F401 - fills NAT's registry
from nat_dynamo_plugin.cli.commands import dynamo
from nat_dynamo_plugin.config.block import Block
from nat_dynamo_plugin.config.model import DynamoModelConfig, other_names
from nat_dynamo_plugin.config.model import names as config_names
from nat_dynamo_plugin.config.names import has_space
from nat_dynamo_plugin.config.values import Number
from nat_dynamo_plugin.question.hints import DynamoHints
from nat_dynamo_plugin.telemetry import names
from nat_dynamo_plugin.telemetry.kinds import Kind
from nat_dynamo_plugin.telemetry.record import CallRecord

sys.path.insert(0, str(Path(__file__).parent))
from metric_families import families

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
PACKAGE = "nat_dynamo_plugin"

HEAD = """# Reference

<!-- Written by scripts/reference.py; `make reference` writes it anew. -->

Every field, hint, evaluator, command, environment variable, metric and record field, as the code has them.
"""


# --- Tables


def cell(text: str) -> str:
    """Text as it stands in a table: on one line, its bars escaped."""
    text = " ".join(text.split()).replace("|", "\\|")
    # Inside code marks an entity would stand as it is.
    return "`".join(part if inside % 2 else part.replace("<", "&lt;") for inside, part in enumerate(text.split("`")))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; nothing without rows."""
    head, rows = list(head), [list(row) for row in rows]
    if not rows:
        return ""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)]) + "\n"


def code(text: object) -> str:
    return f"`{text}`"


def sentence(text: str) -> str:
    """The first paragraph of a docstring, as Markdown."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


# --- Fields of pydantic's models


def values_of(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a field takes, in words."""
    for one in metadata:
        if isinstance(number := getattr(one, "func", None), Number):
            return ", ".join(number.allowed)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return values_of(arguments[0], [*metadata, *arguments[1:]])
    if origin in (typing.Union, types.UnionType):
        # None last, and what says the same once.
        kinds = sorted(arguments, key=lambda kind: kind is type(None))
        return ", ".join(dict.fromkeys(values_of(kind, metadata) for kind in kinds))
    if origin is typing.Literal:
        return ", ".join(map(code, arguments))
    if origin is list:
        return f"list of {values_of(arguments[0])}"
    if origin is dict:
        return f"mapping of {values_of(arguments[0])} to {values_of(arguments[1])}"
    plain = _plain(annotation)
    return plain if plain == "null" else plain + _bounds(metadata)


def _plain(annotation: Any) -> str:
    if annotation in (None, type(None)):
        return "null"
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return ", ".join(code(member.value) for member in annotation)
        if issubclass(annotation, Block):
            return "a block"
        if issubclass(annotation, SearchSpace):
            return "a search space"
        words = {
            bool: "true, false",
            int: "whole number",
            float: "number",
            str: "text",
            Path: "path",
            SecretStr: "text",
        }
        return words.get(annotation, annotation.__name__)
    return "anything" if annotation is Any else str(annotation)


def _bounds(metadata: Iterable[Any]) -> str:
    words = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "pattern": "matching `{}`"}
    words |= {"min_length": "{} or more characters", "max_length": "at most {} characters"}
    constraints = [part for one in metadata for part in (getattr(one, "metadata", None) or [one])]
    found = [
        text.format(f"{value:g}" if isinstance(value, float) else value)
        for one in constraints
        for name, text in words.items()
        if (value := getattr(one, name, None)) is not None
    ]
    return "".join(f", {text}" for text in dict.fromkeys(found))


def default_of(field: FieldInfo) -> str:
    """The default of a field as it stands in YAML."""
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "by other fields"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, Enum):
        value = value.value
    return code(value if isinstance(value, str) else json.dumps(value, default=str))


def field_rows(model: type[BaseModel], where: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A row for each field that a config may give under a name of its own."""
    for name, field in model.model_fields.items():
        if field.frozen:  # another name of a field in a block, which is listed there
            continue
        path = f"{where}.{name}" if where else name
        aliases = [*_aliases(name, field), *(other_names(path) if model_is_ours(model) else [])]
        text = field.description or ""
        if aliases:
            text += f" {'Beside the block' if where else 'Also'}: {', '.join(map(code, dict.fromkeys(aliases)))}."
        if has_space(field):
            text += f" Search space: {space_of(field)}."
        yield code(name), values_of(field.annotation, field.metadata), default_of(field), text


def space_of(field: FieldInfo) -> str:
    """What NAT's optimizer tries for a field."""
    extra = field.json_schema_extra
    space = extra.get("search_space") if isinstance(extra, dict) else None
    if not isinstance(space, SearchSpace):
        return "given by the user"
    if space.values is not None:
        return ", ".join(map(code, space.values))
    return f"{space.low:g} to {space.high:g}" + (f" in steps of {space.step:g}" if space.step else "")


def model_is_ours(model: type[BaseModel]) -> bool:
    return issubclass(model, (DynamoModelConfig, Block))


def _aliases(name: str, field: FieldInfo) -> list[str]:
    choices = getattr(field.validation_alias, "choices", [field.validation_alias] if field.validation_alias else [])
    return [choice for choice in choices if isinstance(choice, str) and choice != name]


def fields(model: type[BaseModel], where: str = "") -> str:
    rows = [row for row in field_rows(model, where) if row[0] not in ("`type`",)]
    return table(("Field", "Values", "Default", "What it is"), rows) or "No fields.\n"


# --- Sections


def llm() -> Iterator[str]:
    yield "## `_type: dynamo`\n"
    yield sentence(DynamoModelConfig.__doc__ or "") + "\n"
    yield fields(DynamoModelConfig)
    for name, block in config_names().blocks.items():
        yield f"### `{name}:`\n"
        yield sentence(block.__doc__ or "") + "\n"
        yield fields(block, name)


def described(doc: str, wanted: Iterable[str]) -> dict[str, str]:
    """What a docstring says of names, in the form `name: text` with further lines indented more."""
    found: dict[str, str] = {}
    lines = inspect.cleandoc(doc).splitlines()
    wanted = set(wanted)
    for number, line in enumerate(lines):
        match = re.match(r"(\s+)(\w+): (.*)", line)
        if match and match[2] in wanted:
            text = [match[3]]
            for more in lines[number + 1 :]:
                if not more.startswith(match[1] + "    "):
                    break
                text.append(more.strip())
            found[match[2]] = " ".join(text)
    return found


def hints() -> Iterator[str]:
    scope = inspect.signature(DynamoHints.scope)
    text = described(DynamoHints.scope.__doc__ or "", scope.parameters)
    yield "## Hints\n"
    yield sentence(DynamoHints.__doc__ or "") + " `with DynamoHints.scope(...)` takes, each by its name:\n"
    yield table(
        ("Argument", "Type", "What it is"),
        [(code(name), code(of.annotation), text[name]) for name, of in scope.parameters.items()],
    )


def components(kind: str, title: str) -> Iterator[str]:
    """What NAT's registry has of ours, of a kind."""
    registry = GlobalTypeRegistry.get()
    ours = {
        config.static_type(): config
        for one in getattr(registry, f"get_registered_{kind}")()
        for config in (one.config_type,)
        if config.__module__.startswith(PACKAGE)
    }
    yield f"## {title}\n"
    for name, config in sorted(ours.items()):
        yield f"### `_type: {name}`\n"
        yield sentence(config.__doc__ or "") + "\n"
        yield fields(config)


def commands() -> Iterator[str]:
    yield "## Commands\n"
    context = click.Context(dynamo, info_name="nat dynamo")
    for name in dynamo.list_commands(context):
        command = dynamo.get_command(context, name)
        assert command is not None
        usage = command.collect_usage_pieces(click.Context(command, info_name=name))
        yield f"### `nat dynamo {name}`\n"
        yield f"`{' '.join(['nat dynamo', name, *usage])}`\n"
        yield sentence((command.help or "").replace("\b", "")) + "\n"
        options = [param for param in command.params if isinstance(param, click.Option)]
        yield table(
            ("Option", "Values", "Default", "What it is"),
            [
                (
                    ", ".join(map(code, (*option.opts, *option.secondary_opts))),
                    "" if option.is_flag else _option_values(option.type),
                    _option_default(option),
                    option.help or "",
                )
                for option in options
            ],
        )


def _option_values(kind: click.ParamType) -> str:
    if isinstance(kind, click.Choice):
        return ", ".join(map(code, kind.choices))
    if isinstance(kind, click.IntRange | click.FloatRange):
        bounds = (
            (kind.min, "above" if kind.min_open else "at least"),
            (kind.max, "below" if kind.max_open else "at most"),
        )
        words = [f"{word} {bound:g}" for bound, word in bounds if bound is not None]
        return ", ".join(["whole number" if isinstance(kind, click.IntRange) else "number", *words])
    return {"integer": "whole number", "float": "number"}.get(kind.name, kind.name)


def _option_default(option: click.Option) -> str:
    default = option.to_info_dict()["default"]
    return "" if option.is_flag or default is None or callable(default) else code(default)


def environment() -> Iterator[str]:
    yield "## Environment variables\n"
    yield table(("Variable", "What it is"), ((code(name), text) for name, text in variables(ROOT / "src")))


def variables(source: Path) -> list[tuple[str, str]]:
    """Environment variables that code under `source` reads by a constant, and the docstring of the constant.

    Raises:
        ValueError: for one that is read by a name in clear, or by a constant without a docstring.
    """
    constants = [_constants(path) for path in sorted(source.rglob("*.py"))]
    texts = {name: value for found in constants for name, value in found.items()}
    result: dict[str, str] = {}
    for path in sorted(source.rglob("*.py")):
        for name in _read_variables(ast.parse(path.read_text(encoding="utf-8"))):
            if name.startswith("_") or name.islower():
                continue  # a variable of our own processes; a name that the user gave
            value, text = texts.get(name, ("", ""))
            if not text:
                raise ValueError(f"{path}: the environment variable {name} is read without a constant with a docstring")
            result[value] = text
    return sorted(result.items())


def _constants(path: Path) -> dict[str, tuple[str, str]]:
    """Names of a module that stand for a text, with the docstring below, if there is one."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and node.targets[0].id.isupper():
                said = after.value if isinstance(after, ast.Expr) else None
                text = said.value if isinstance(said, ast.Constant) else ""
                if text:
                    found[node.targets[0].id] = value.value, str(text)
    return found


def _read_variables(tree: ast.Module) -> Iterator[str]:
    """What `os.environ[...]`, `os.environ.get(...)` and `os.getenv(...)` are asked for, as it stands there."""
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
            if ast.unparse(node.func) in ("os.environ.get", "os.getenv"):
                key = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            key = None if isinstance(node.ctx, ast.Store) else node.slice
        if key is not None:
            yield ast.unparse(key).rpartition(".")[2].removeprefix("self._") or ""


def metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "What they are for, and how they are exposed: [Metrics](metrics.md).\n"
    yield "### Prometheus\n"
    yield table(
        ("Metric", "Kind", "Labels", "What it is"),
        ((code(one.name), one.kind, ", ".join(map(code, one.labels)), one.help) for one in families()),
    )
    yield "The label `error` holds one of these kinds:\n"
    yield ", ".join(code(kind.value) for kind in Kind) + ".\n"
    yield "### OpenTelemetry\n"
    for title, chosen in (("By default:", names.V1_41), (f"With `{names.OPT_IN}`:", names.LATEST)):
        yield title + "\n"
        yield table(
            ("Metric", "Kind", "Unit", "Record field"),
            (
                (
                    code(one.name) + (f", `{names.TOKEN_TYPE}` = `{one.token_type}`" if one.token_type else ""),
                    "histogram" if one.boundaries else "counter",
                    one.unit,
                    code(one.field),
                )
                for one in chosen
            ),
        )


def record() -> Iterator[str]:
    specs = dataclasses.fields(CallRecord)
    text = described(CallRecord.__doc__ or "", [spec.name for spec in specs])
    yield "## A call's record\n"
    yield sentence(CallRecord.__doc__ or "") + "\n"
    yield table(
        ("Field", "Type", "What it is"), ((code(spec.name), code(spec.type), text[spec.name]) for spec in specs)
    )


def page() -> str:
    """The page."""
    parts = [
        HEAD,
        *llm(),
        *hints(),
        *components("evaluators", "Evaluators"),
        *components("middleware", "Middleware"),
        *components("optimizers", "Optimizer"),
        *commands(),
        *environment(),
        *metrics(),
        *record(),
    ]
    return "\n".join(part for part in parts if part)


def main() -> int:
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    there = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    for line in unified_diff(there.splitlines(), made.splitlines(), "docs/reference.md", "the code", lineterm="", n=0):
        print(line, file=sys.stderr)
    print("Reference: " + ("as the code." if there == made else "stale; run `make reference`."))
    return 0 if there == made else 1


if __name__ == "__main__":
    sys.exit(main())
