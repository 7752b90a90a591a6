from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from nat_dynamo_bfcl.benchmark import function_docs, tasks, tool_parameters
from nat_dynamo_bfcl.schema import to_json_schema, to_openai_tool

CLASSES = sorted({name for task in tasks().values() for name in task.involved_classes})


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_tool_has_a_valid_schema(class_name: str) -> None:
    for doc in function_docs(class_name):
        tool = json.loads(json.dumps(to_openai_tool(doc)))
        assert tool["type"] == "function"
        function = tool["function"]
        assert set(function) == {"name", "description", "parameters"}
        jsonschema.Draft202012Validator.check_schema(function["parameters"])
        assert function["parameters"]["type"] == "object"
        assert set(function["parameters"]["properties"]) == set(tool_parameters(class_name)[function["name"]])
        assert set(function["parameters"].get("required", ())) <= set(function["parameters"]["properties"])
        assert doc["description"] in function["description"]


def test_the_docs_themselves_are_no_json_schema() -> None:
    """What the conversion is for; if this fails, BFCL has changed and the conversion may go."""
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema(dict(function_docs("GorillaFileSystem")[0]["parameters"]))


@pytest.mark.parametrize(
    ("doc", "schema"),
    [
        (
            {"type": "dict", "properties": {"x": {"type": "float"}}},
            {"type": "object", "properties": {"x": {"type": "number"}}},
        ),
        ({"type": "tuple", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "any", "description": "d"}, {"description": "d"}),
        ({"description": "d"}, {"description": "d"}),
        ({"type": "string", "enum": ["a"], "default": "a"}, {"type": "string", "enum": ["a"], "default": "a"}),
        (
            {
                "type": "array",
                "items": {"type": "dict", "properties": {"type": {"type": "bool"}}, "required": ["type"]},
            },
            {
                "type": "array",
                "items": {"type": "object", "properties": {"type": {"type": "boolean"}}, "required": ["type"]},
            },
        ),
    ],
)
def test_type_names_are_translated_at_every_depth(doc: dict[str, Any], schema: dict[str, Any]) -> None:
    assert to_json_schema(doc) == schema


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown type 'quaternion'"):
        to_json_schema({"type": "dict", "properties": {"x": {"type": "quaternion"}}})
