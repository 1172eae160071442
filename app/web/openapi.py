"""The OpenAPI 3.1 document of the HTTP API, from the operations' own types: nothing in it is written twice."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app import __version__
from app.errors import ERROR_TYPES
from app.protocol.endpoint import Endpoint, endpoints_of
from app.protocol.fields import AnswerModel
from app.web.cookies import COOKIE, CSRF_HEADER
from app.web.server import PREFIX

REF = "#/components/schemas/{model}"
MODE_OF_INPUT: JsonSchemaMode = "validation"
MODE_OF_OUTPUT: JsonSchemaMode = "serialization"


class ErrorBody(AnswerModel):
    """What went wrong. `outcome`: `none`, it will never take effect; `unknown`, send again with the same client_msg_id."""

    code: str
    message: str
    outcome: str
    details: dict[str, Any] | None
    request_id: str


class ErrorAnswer(AnswerModel):
    """Every answer with a status of 400 or above."""

    error: ErrorBody


def build_document(handlers: Sequence[object]) -> dict[str, Any]:
    """The document for these handler objects."""
    endpoints = [described for one in handlers for described, _ in endpoints_of(one)]
    functions = {
        described.path + described.method: function for one in handlers for described, function in endpoints_of(one)
    }
    schemas, definitions = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for described in endpoints:
        function = functions[described.path + described.method]
        operation = _operation(described, function.__name__, function.__doc__ or "", schemas)
        paths.setdefault(PREFIX + described.path, {})[described.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Magpie IM",
            "version": __version__,
            "description": (
                "Ids are strings of decimal digits. Times are ms since 1970. Messages also travel over the WebSocket `/ws`, which "
                "the protocol's own page describes. A send is repeated with the same `client_msg_id` until it is answered."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(described) for described in endpoints)],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": f"Unsafe methods also need the header {CSRF_HEADER} with `csrf_token` of `GET {PREFIX}/me`.",
                },
            },
        },
    }


Schemas = Mapping[Any, Mapping[str, Any]]
"""(model, mode) → its schema."""


def _schemas(endpoints: Sequence[Endpoint]) -> tuple[Schemas, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ErrorAnswer, MODE_OF_OUTPUT): None}
    for described in endpoints:
        if described.body is not None:
            wanted[described.body, MODE_OF_INPUT] = None
        if described.answer is not None:
            wanted[described.answer, MODE_OF_OUTPUT] = None
    schemas, top = models_json_schema(list(wanted), ref_template=REF)
    return schemas, top.get("$defs", {})


def _operation(described: Endpoint, name: str, doc: str, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{_tag(described)}_{name}",
        "tags": [_tag(described)],
        "summary": described.summary,
        "description": " ".join(doc.split()),
        "parameters": _parameters(described),
        "responses": _responses(described, schemas),
        "security": [{"token": []}, {"cookie": []}] if described.auth else [],
    }
    if described.body is not None:
        schema = schemas[described.body, MODE_OF_INPUT]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameters(described: Endpoint) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": TypeAdapter(hint).json_schema()}
        for name, hint in described.path_params.items()
    ]
    if described.query is not None:
        schema = described.query.model_json_schema(ref_template=REF)
        required = schema.get("required", [])
        for name, one in schema["properties"].items():
            found.append({"name": name, "in": "query", "required": name in required, "schema": _without_null(one)})
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is absent, never null."""
    options = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(options) == 1:
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return {**rest, **options[0]}
    return schema


def _responses(described: Endpoint, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {str(described.status): {"description": "Success"}}
    if described.answer is not None:
        content = {"application/json": {"schema": schemas[described.answer, MODE_OF_OUTPUT]}}
        responses[str(described.status)]["content"] = content
        for status in described.other_statuses:
            responses[str(status)] = {"description": "Success", "content": content}
    codes = ["bad_request", "rate_limited", "busy", "internal", *described.errors]
    if described.auth:
        codes += ["unauthorized", "forbidden"]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(ERROR_TYPES[code].status, []).append(code)
    content = {"application/json": {"schema": schemas[ErrorAnswer, MODE_OF_OUTPUT]}}
    for status, names in sorted(by_status.items()):
        responses[str(status)] = {"description": ", ".join(names), "content": content}
    if described.body is not None:
        responses["413"] = {"description": "the body is too large", "content": content}
    return responses


def _tag(described: Endpoint) -> str:
    """Messages live below groups in the path, but are a thing of their own."""
    parts = described.path.strip("/").split("/")
    if parts[-1] in ("messages", "sync", "read"):
        return "messages"
    return {"groups": "groups"}.get(parts[0], "accounts")
