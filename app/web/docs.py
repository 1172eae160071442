"""The API page: the OpenAPI document, prepared for people."""

import json
from collections.abc import Mapping
from typing import Any

SAMPLES = {"integer": 1, "boolean": True, "number": 1.5, "null": None}
DEPTH_MAX = 6


def described(document: Mapping[str, Any], url: str) -> dict[str, Any]:
    """What the template shows: `info` and operations by tag."""
    schemas = document["components"]["schemas"]
    tags: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tags.setdefault(operation["tags"][0], []).append(_operation(path, method, operation, schemas, url))
    return {"info": document["info"], "tags": tags}


def _operation(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any], url: str
) -> dict[str, Any]:
    body = _example_of(operation.get("requestBody", {}), schemas)
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    lines = [f"curl -s{'' if method == 'get' else ' -X ' + method.upper()} '{url}{path}'"]
    if operation["security"]:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if body is not None:
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(body, ensure_ascii=False)}'"]
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": operation["description"],
        "parameters": [{**p, "type": _type(p["schema"])} for p in operation["parameters"]],
        "body": None if body is None else _pretty(body),
        "answer": next((_pretty(example) for a in answers if (example := _example_of(a, schemas)) is not None), None),
        "statuses": [(status, answer["description"]) for status, answer in operation["responses"].items()],
        "curl": " \\\n  ".join(lines),
    }


def _example_of(holder: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    content = holder.get("content", {}).get("application/json")
    return None if content is None else _example(content["schema"], schemas, "", 0)


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str, depth: int) -> Any:
    """A value that fits the schema, made of field names and types."""
    if depth > DEPTH_MAX:
        return None
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas, name, depth + 1)
    given = [schema.get("const"), schema.get("default"), *schema.get("examples", []), *schema.get("enum", [])]
    for value in given:
        if value is not None:
            return value
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return _example(schema[union][0], schemas, name, depth + 1)
    return _example_of_type(schema, schemas, name, depth)


def _example_of_type(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str, depth: int) -> Any:
    match schema.get("type"):
        case "object":
            found = {key: _example(one, schemas, key, depth + 1) for key, one in schema.get("properties", {}).items()}
            if isinstance(schema.get("additionalProperties"), dict):
                found["7291837465"] = _example(schema["additionalProperties"], schemas, name, depth + 1)
            return found
        case "array":
            return [_example(schema.get("items", {}), schemas, name, depth + 1)]
        case "string" if schema.get("format") == "uuid":
            return "6d1c0f3e-7a53-4a9e-9d2f-3b6b6f0d9c11"
        case "string":
            return name or "text"
        case kind:
            return SAMPLES.get(str(kind))


def _type(schema: Mapping[str, Any]) -> str:
    kind = str(schema.get("type", "value"))
    if schema.get("enum"):
        return " | ".join(map(str, schema["enum"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f", {low} to {high}" if low is not None and high is not None else ""
    default = f", default {schema['default']}" if schema.get("default") not in (None, "") else ""
    return f"{kind}{bounds}{default}"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
