from __future__ import annotations

import ast
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dynamo_bfcl.benchmark import task_parameters, tasks
from nat_dynamo_bfcl.calls import CallSyntaxError, ToolCall, flatten_call, is_python_name, parse_call

PARAMETERS = {"f": ("x", "y"), "g": ("a", "b"), "h": ()}

names = st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True).filter(is_python_name)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.builds(ToolCall, names, st.dictionaries(names, inner, max_size=3))
    ),
    max_leaves=12,
)
calls = st.builds(ToolCall, names, st.dictionaries(names, values, max_size=4))


@given(calls)
def test_what_is_rendered_reads_back_the_same(call: ToolCall) -> None:
    assert parse_call(call.render(), {}) == call


@given(st.lists(scalars, max_size=2), scalars)
def test_arguments_without_names_go_to_the_parameters_in_order(unnamed: list[Any], last: Any) -> None:
    text = f"f({', '.join(map(repr, unnamed))})"
    assert parse_call(text, PARAMETERS) == ToolCall("f", dict(zip(("x", "y"), unnamed, strict=False)))
    assert (
        parse_call(f"f({unnamed[0]!r}, y={last!r})" if unnamed else f"f(y={last!r})", PARAMETERS).arguments["y"] == last
    )


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("f(-3, +2.5)", {"x": -3, "y": 2.5}),
        ("f((1, 2), (3,))", {"x": (1, 2), "y": (3,)}),
        ("f({'a': [None, True]}, {1, 2})", {"x": {"a": [None, True]}, "y": {1, 2}}),
        ("f(x='it\\'s \"quoted\" (really)', y='''a\nb''')", {"x": 'it\'s "quoted" (really)', "y": "a\nb"}),
        ("  f( x = 1e-7 ,\n y = 1+2j ) ", {"x": 1e-7, "y": 1 + 2j}),
        ("f(x=set(), y='a' 'b')", {"x": set(), "y": "ab"}),
        ("f(g(1, b=h()))", {"x": ToolCall("g", {"a": 1, "b": ToolCall("h", {})})}),
        ("f(x=[g(1)], y={'k': (h(),)})", {"x": [ToolCall("g", {"a": 1})], "y": {"k": (ToolCall("h", {}),)}}),
    ],
)
def test_odd_literals_and_nested_calls(text: str, arguments: dict[str, Any]) -> None:
    call = parse_call(text, PARAMETERS)
    assert call == ToolCall("f", arguments)
    assert parse_call(call.render(), PARAMETERS) == call


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("f(", "not a call"),
        ("f", "not a call"),
        ("f(1); g(2)", "not a call"),
        ("a.f(1)", "no tool's name"),
        ("f(1, 2, 3)", "at most 2 arguments, 3 given"),
        ("k(1)", "no known tool"),
        ("f(1, x=2)", "given twice"),
        ("f(**{'x': 1})", "`\\*\\*`"),
        ("f(*[1, 2])", "neither a literal nor a call"),
        ("f(x=y)", "'y'.*neither a literal nor a call"),
        ("f(x=2 * 3)", "neither a literal nor a call"),
        ("f(x={**{}})", "neither a literal nor a call"),
    ],
)
def test_anything_else_is_refused_with_the_text_and_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(CallSyntaxError, match=complaint):
        parse_call(text, PARAMETERS)


@pytest.mark.parametrize(
    "call",
    [ToolCall("f", {"a-b": 1}), ToolCall("f", {"class": 1}), ToolCall("os.system", {"x": 1}), ToolCall("f", {"ﬁ": 1})],
)
def test_a_call_without_python_names_is_not_rendered(call: ToolCall) -> None:
    with pytest.raises(CallSyntaxError, match="no Python name"):
        call.render()


def test_nested_calls_are_made_first_and_their_results_passed_on() -> None:
    seen: list[str] = []

    def execute(call: ToolCall) -> str:
        seen.append(call.render())
        return f"<{call.name}>"

    made = flatten_call(parse_call("f(x=g(h(), 2), y=[g(1)])", PARAMETERS), execute)
    assert seen == ["h()", "g(a='<h>', b=2)", "g(a=1)", "f(x='<g>', y=['<g>'])"]
    assert [call.render() for call in made] == seen


def test_a_failing_inner_call_leaves_the_outer_one_unmade() -> None:
    def execute(call: ToolCall) -> str:
        raise RuntimeError(call.name)

    assert flatten_call(parse_call("f(x=g(1))", PARAMETERS), execute) == [ToolCall("g", {"a": 1})]


def test_every_ground_truth_call_reads_as_python_reads_it() -> None:
    count = unnamed = 0
    for task in tasks().values():
        parameters = task_parameters(task)
        for text in (text for turn in task.ground_truth for text in turn):
            call = parse_call(text, parameters)
            node = ast.parse(text.strip(), mode="eval").body
            assert isinstance(node, ast.Call)
            assert ast.unparse(node.func) == call.name
            given = [ast.literal_eval(value) for value in (*node.args, *(argument.value for argument in node.keywords))]
            assert list(call.arguments.values()) == given
            assert set(call.arguments) <= set(parameters[call.name])
            assert parse_call(call.render(), {}) == call
            count += 1
            unnamed += bool(node.args)
    assert (count, unnamed) == (1142, 40)


@pytest.fixture
def threads_change_everywhere() -> Iterator[None]:
    """Whenever some objects have been made, garbage is collected, and whenever it is collected, other threads go on."""

    def let_others_run(phase: str, info: dict[str, int]) -> None:
        time.sleep(0.0001)  # 0 would give the interpreter away and take it back before anybody has woken up

    thresholds = gc.get_threshold()
    gc.callbacks.append(let_others_run)
    gc.set_threshold(20)
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(let_others_run)


@pytest.mark.usefixtures("threads_change_everywhere")
def test_many_threads_read_calls_at_once() -> None:
    text = "f(x=[1, (2, [3, {'a': [4, 5]}]), g(a=[6, [7, [8]]])], y={'a': [{'b': 9}]})"
    expected = parse_call(text, PARAMETERS)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: parse_call(text, PARAMETERS), range(400)))
    assert made == [expected] * 400
