from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from dataclasses import fields

import pytest

from nat_dynamo_plugin.telemetry import record as module
from nat_dynamo_plugin.telemetry.record import CallRecord


def test_every_field_is_documented_and_nothing_else() -> None:
    documented = re.findall(r"^ {4}(?:    )?(\w+): ", inspect.cleandoc(CallRecord.__doc__ or ""), re.MULTILINE)
    assert documented == [spec.name for spec in fields(CallRecord)]


def test_is_a_leaf() -> None:
    tree = ast.parse(inspect.getsource(module))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)


def test_as_json_ready_data(record: CallRecord) -> None:
    data = record.to_dict()
    assert json.loads(json.dumps(data))["hints"] == {"osl": 9}
    assert set(data) == {spec.name for spec in fields(CallRecord)}
    data["hints"]["osl"] = 1
    assert record.hints == {"osl": 9}
    assert CallRecord(**record.to_dict()) == record


@pytest.mark.parametrize(
    ("record", "failure"),
    [
        (CallRecord(status=200), None),
        (CallRecord(), None),
        (CallRecord(status=529), "529"),
        (CallRecord(status=503, error="down", error_type="503"), "503"),
        (CallRecord(error="ReadError: gone", error_type="ReadError"), "ReadError"),
        (CallRecord(status=200, error="died", error_type="error_in_answer"), "error_in_answer"),
        (CallRecord(status=200, error="of an old record"), "_OTHER"),
    ],
)
def test_failures_have_a_kind(record: CallRecord, failure: str | None) -> None:
    assert record.failure == failure
    assert record.failed is (failure is not None)
