"""The API's own description, OpenAPI 3.1, made of the operations and the models they use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.gateway.http.answers import Health
from services.gateway.http.body import MAX_FILES
from services.gateway.http.call import MAX_TIMEOUT_MS, TIMEOUT_HEADER
from services.gateway.http.operations import OPERATIONS, Operation
from services.gateway.http.problems import Problem
from vitrine.callers import CLIENT_HEADER

_SCHEMAS = "#/components/schemas/{model}"
_STATUSES = {
    "400": "A field is wrong; `violations` names it.",
    "401": "The caller did not say who it is.",
    "403": "The caller may not do this.",
    "404": "There is no such collection, product, image or query.",
    "409": "The request does not fit the present state: another embedding space, no feedback kept, ...",
    "413": "The body is over the limit.",
    "415": "The body is of a media type that is not read here.",
    "429": "Overloaded; come back after Retry-After seconds.",
    "500": "A defect; report it with the request id.",
    "501": "Not in this version.",
    "503": "The embedder or too many shards are away; try again.",
    "504": "The deadline passed.",
}
_ID = {"type": "string", "minLength": 1, "maxLength": 256}
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "collection": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$", "examples": ["catalogue"]},
    "product_id": _ID,
    "image_id": _ID,
}
_HEADERS = [
    {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": "Milliseconds the answer may take; the gateway's default_deadline_seconds is the longest.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
    },
    {
        "name": CLIENT_HEADER,
        "in": "header",
        "description": "Who asks, for a fair share under load.",
        "schema": {"type": "string", "pattern": "^([A-Za-z0-9][A-Za-z0-9._:@/-]{0,63})?$"},
    },
]


def build_document() -> dict[str, Any]:
    """Returns the document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths["/healthz"] = {
        "get": {
            "operationId": "health",
            "summary": "Whether this gateway takes requests; 503 while it drains",
            "responses": {
                status: {"description": told, "content": {"application/json": {"schema": _reference(Health)}}}
                for status, told in (("200", "It does."), ("503", "It does not, or not any more."))
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vitrine",
            "version": "1",
            "description": "Visual search over HTTP and JSON: the gateway's gRPC service `vitrine.v1.VisualSearch`.",
        },
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_HEADERS],
        "responses": {_success(operation): _answer(operation), **_problems()},
    }
    if bodies := dict(_bodies(operation)):
        described["requestBody"] = {"required": True, "content": bodies}
    return described


def _success(operation: Operation) -> str:
    return "200" if operation.answer is not None or operation.answer_media else "204"


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.answer is not None:
        content: dict[str, Any] = {"application/json": {"schema": _reference(operation.answer)}}
    else:
        content = {media: {"schema": {"type": "string", "format": "binary"}} for media in operation.answer_media}
    return {"description": "Done."} | ({"content": content} if content else {})


def _problems() -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _reference(Problem)}}
    return {status: {"description": told, "content": content} for status, told in _STATUSES.items()}


def _path_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}


def _query_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    for name, schema in operation.query.model_json_schema()["properties"].items():
        yield {"name": name, "in": "query", "schema": _without_null(schema)}


def _bodies(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    if operation.json_body is not None:
        yield "application/json", {"schema": _reference(operation.json_body)}
    if operation.form_body is not None:
        yield "multipart/form-data", {"schema": _form(operation)}


def _form(operation: Operation) -> dict[str, Any]:
    assert operation.form_body is not None
    schema = operation.form_body.model_json_schema(ref_template=_SCHEMAS)
    fields = {name: _without_null(each) for name, each in schema["properties"].items()}
    image = {"type": "string", "format": "binary", "description": f"JPEG, PNG or WebP; at most {MAX_FILES} files."}
    fields["image"] = image
    if operation.form_request is not None:
        fields["request"] = {
            "description": "Instead of the other fields.",
            "allOf": [_reference(operation.form_request)],
        }
    return {"type": "object", "description": schema["description"], "properties": fields}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field or parameter is left out where it has no value; there is no way to write null."""
    kept = {name: value for name, value in schema.items() if not (name == "default" and value is None)}
    choices = kept.get("anyOf", [])
    if {"type": "null"} in choices:
        (only,) = (each for each in choices if each != {"type": "null"})
        del kept["anyOf"]
        kept |= only
    return kept


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


def _schemas() -> dict[str, Any]:
    read: set[Any] = {each for op in OPERATIONS for each in (op.json_body, op.form_body, op.form_request) if each}
    written: set[Any] = {op.answer for op in OPERATIONS if op.answer} | {Problem, Health}
    models: list[tuple[Any, Literal["validation", "serialization"]]] = [(each, "validation") for each in read]
    models += [(each, "serialization") for each in written]
    _, document = models_json_schema(sorted(models, key=lambda each: each[0].__name__), ref_template=_SCHEMAS)
    schemas: dict[str, Any] = document["$defs"]
    return schemas
