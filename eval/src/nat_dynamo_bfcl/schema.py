"""BFCL's function docs as JSON schema and as OpenAI tools.

BFCL writes Python-like type names ("dict", "float", "tuple", "any") where JSON schema has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

JSON_TYPES = {
    "dict": "object",
    "object": "object",
    "float": "number",
    "number": "number",
    "integer": "integer",
    "string": "string",
    "boolean": "boolean",
    "bool": "boolean",
    "array": "array",
    "list": "array",
    "tuple": "array",
}
"""BFCL's type names and JSON schema's. "any" is not here: any value means no `type` at all."""


def to_json_schema(doc: Mapping[str, Any]) -> dict[str, Any]:
    """A BFCL parameter description as JSON schema.

    Raises:
        ValueError: a type name that BFCL's docs do not use.
    """
    schema = {
        key: value for key, value in doc.items() if key not in ("type", "properties", "items", "required", "optional")
    }
    name = doc.get("type", "any")
    if name != "any":
        if name not in JSON_TYPES:
            raise ValueError(f"unknown type {name!r} in a BFCL function doc; known: any, {', '.join(JSON_TYPES)}")
        schema = {"type": JSON_TYPES[name], **schema}
    if "properties" in doc:
        schema["properties"] = {key: to_json_schema(value) for key, value in doc["properties"].items()}
    if "items" in doc:
        schema["items"] = to_json_schema(doc["items"])
    if "required" in doc and isinstance(doc["required"], list):
        schema["required"] = list(doc["required"])
    return schema


def to_openai_tool(doc: Mapping[str, Any]) -> dict[str, Any]:
    """A BFCL function doc as an OpenAI tool. What the tool answers goes into the description, as BFCL does it."""
    description = doc["description"]
    if "response" in doc:
        description += f" The response field has the following schema: {json.dumps(to_json_schema(doc['response']))}"
    return {
        "type": "function",
        "function": {
            "name": doc["name"],
            "description": description,
            "parameters": to_json_schema(doc["parameters"]),
        },
    }
