"""Tool calls as BFCL writes them, `cd(folder='x')`: read with `ast`, written back with `repr`."""

from __future__ import annotations

import ast
import contextlib
import keyword
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# CPython 3.11 counts in one place for all threads how deep `ast.parse` is in a tree, so two at once can end with a
# SystemError.
_parsing = threading.Lock()


class CallSyntaxError(ValueError):
    """A call string that is not one tool call with literal or nested-call arguments."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. An argument's value is a Python literal, or holds further `ToolCall`s to be made first."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def render(self) -> str:
        """The call as Python source, every argument named, as BFCL's checker takes it.

        Raises:
            CallSyntaxError: the tool's or an argument's name is no Python name.
        """
        for name in (self.name, *self.arguments):
            if not is_python_name(name):
                raise CallSyntaxError(f"{name!r} in a call of {self.name!r} is no Python name")
        return f"{self.name}({', '.join(f'{key}={_render_value(value)}' for key, value in self.arguments.items())})"


def is_python_name(text: str) -> bool:
    """Whether `text` can name a tool or an argument in a call string."""
    # Python reads identifiers in their NFKC form: any other would come back as another name.
    return text.isidentifier() and not keyword.iskeyword(text) and unicodedata.normalize("NFKC", text) == text


def parse_call(text: str, parameters: Mapping[str, Sequence[str]]) -> ToolCall:
    """Read one call string; safe to call from several threads at once.

    Arguments may be named or not, and any literal that `ast.literal_eval` knows (negative numbers, tuples, sets, bytes,
    nested lists and dicts, None, ...), or another call, also inside a list or dict.

    Args:
        text: for example `sort('report.pdf')` or `f(x=g((1, 2)), y=-3)`.
        parameters: each tool's parameter names in order, to name the arguments given without a name.

    Raises:
        CallSyntaxError: `text` is not one call, or an argument is neither a literal nor a call, or an unnamed argument
            has no parameter to go to, or one parameter gets two values.
    """
    try:
        with _parsing:
            node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise CallSyntaxError(f"not a call: {text!r} ({error})") from error
    if not isinstance(node, ast.Call):
        raise CallSyntaxError(f"not a call: {text!r}")
    return _read_call(node, text, parameters)


def flatten_call(call: ToolCall, execute: Callable[[ToolCall], Any]) -> list[ToolCall]:
    """Make a call and the calls in its arguments, innermost first, and list them as made: with literals only.

    `execute` makes one call whose arguments are literals; what it returns is what the enclosing call gets. If it
    raises, the enclosing calls are not made, as in Python.
    """
    made: list[ToolCall] = []
    with contextlib.suppress(Exception):
        _make(call, execute, made)
    return made


def _make(value: Any, execute: Callable[[ToolCall], Any], made: list[ToolCall]) -> Any:
    match value:
        case ToolCall(name=name, arguments=arguments):
            call = ToolCall(name, {key: _make(item, execute, made) for key, item in arguments.items()})
            made.append(call)
            return execute(call)
        case list():
            return [_make(item, execute, made) for item in value]
        case tuple():
            return tuple(_make(item, execute, made) for item in value)
        case dict():
            return {key: _make(item, execute, made) for key, item in value.items()}
        case _:
            return value


def _read_call(node: ast.Call, text: str, parameters: Mapping[str, Sequence[str]]) -> ToolCall:
    if not isinstance(node.func, ast.Name):
        raise CallSyntaxError(f"{ast.unparse(node.func)!r} is no tool's name, in {text!r}")
    name = node.func.id
    arguments: dict[str, Any] = {}
    if node.args:
        names = parameters.get(name)
        if names is None:
            raise CallSyntaxError(f"unnamed arguments of {name!r}, which is no known tool, in {text!r}")
        if len(node.args) > len(names):
            raise CallSyntaxError(f"{name!r} takes at most {len(names)} arguments, {len(node.args)} given, in {text!r}")
        for parameter, argument in zip(names, node.args, strict=False):
            arguments[parameter] = _read_value(argument, text, parameters)
    for named in node.keywords:
        if named.arg is None:
            raise CallSyntaxError(f"`**` in {text!r}")
        if named.arg in arguments:
            raise CallSyntaxError(f"{named.arg!r} is given twice in {text!r}")
        arguments[named.arg] = _read_value(named.value, text, parameters)
    return ToolCall(name, arguments)


def _read_value(node: ast.expr, text: str, parameters: Mapping[str, Sequence[str]]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
            return set()
        case ast.Call():
            return _read_call(node, text, parameters)
        case ast.List(elts=items):
            return [_read_value(item, text, parameters) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_read_value(item, text, parameters) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                _read_literal(key, text): _read_value(value, text, parameters)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case _:
            return _read_literal(node, text)


def _read_literal(node: ast.expr, text: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise CallSyntaxError(f"{ast.unparse(node)!r} in {text!r} is neither a literal nor a call") from error


def _render_value(value: Any) -> str:
    match value:
        case ToolCall():
            return value.render()
        case list():
            return f"[{', '.join(map(_render_value, value))}]"
        case tuple():
            return f"({', '.join(map(_render_value, value))}{',' if len(value) == 1 else ''})"
        case dict():
            return f"{{{', '.join(f'{key!r}: {_render_value(item)}' for key, item in value.items())}}}"
        case _:
            return repr(value)
