"""Reads request bodies within their limits, in memory: no part of a query image ever goes to disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from services.gateway.http.problems import from_validation
from vitrine.errors import CancelledCallError, DeadlineError, InvalidArgumentError, TooLargeError

MAX_FILES = 8
MAX_FIELDS = 64
MAX_TEXT_BYTES = 2**20
"""Of a JSON body, or of one field of a form."""
MAX_SECONDS = 60.0
"""For a whole body to arrive: a photo over a phone's connection."""

Body = TypeVar("Body", bound=BaseModel)


@dataclass
class Form:
    """A `multipart/form-data` body: files by field name and fields, both in the order they came."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)


class _InMemoryParser(MultiPartParser):
    spool_max_size = 2**40  # nothing spills to disk; what may arrive is limited as it is read


def media_type(request: Request) -> str:
    """Returns the body's media type without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def unsupported(*accepted: str) -> HTTPException:
    """Returns the error for a body of another media type."""
    return HTTPException(415, f"content-type must be {' or '.join(accepted)}", {"Accept": ", ".join(accepted)})


async def read_json(request: Request, kind: type[Body]) -> Body:
    """Reads a JSON body of a model.

    Raises:
        HTTPException: It is of another media type.
        TooLargeError: It is over the limit.
        InvalidArgumentError: It is not of the model.
    """
    if media_type(request) != "application/json":
        raise unsupported("application/json")
    async with _in_time():
        data = b"".join([chunk async for chunk in _limited(request, MAX_TEXT_BYTES, "a JSON body")])
    return parse_json(data, kind)


def parse_json(data: bytes | str, kind: type[Body]) -> Body:
    """Parses JSON into a model.

    Raises:
        InvalidArgumentError: It is not of the model.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise from_validation(error) from None


def parse_fields(fields: Sequence[tuple[str, str]], kind: type[Body]) -> Body:
    """Parses form fields or query parameters into a model; lists are repeated fields, other than text is JSON.

    Raises:
        InvalidArgumentError: They are not of the model.
    """
    values: dict[str, Any] = {}
    for name, text in fields:
        declared = kind.model_fields.get(name)
        if declared is not None and get_origin(declared.annotation) is list:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise InvalidArgumentError(f"{name[:80]} is given more than once", field=name[:80])
        else:
            is_text = declared is None or declared.annotation in (str, str | None)
            values[name] = text if is_text else _json_or_text(text)
    return parse_json(json.dumps(values), kind)


def _json_or_text(text: str) -> Any:
    """What is no JSON stays text, for the model to refuse by the field's name."""
    try:
        return from_json(text)  # unlike that of `json` it ends at a few hundred levels, with an error that is one
    except ValueError:
        return text


async def read_form(request: Request, limit: int) -> Form:
    """Reads a multipart body of at most `limit` bytes, files and all.

    Raises:
        TooLargeError: It is over a limit.
        InvalidArgumentError: It is not multipart, or has too many parts.
    """
    parser = _InMemoryParser(
        request.headers,
        _limited(request, limit, "max_message_bytes"),
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_TEXT_BYTES,
    )
    try:
        async with _in_time():
            parsed = await parser.parse()
    except MultiPartException as error:
        raise InvalidArgumentError(f"body: {error.message}", field="body") from None
    form = Form()
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            form.files.append((name, await value.read()))
        else:
            form.fields.append((name, value))
    await parsed.close()
    return form


@asynccontextmanager
async def _in_time() -> AsyncGenerator[None, None]:
    """Ends reading that takes longer than it may, or whose sender has gone."""
    try:
        async with asyncio.timeout(MAX_SECONDS):
            yield
    except TimeoutError:
        raise DeadlineError(f"the body did not arrive within {MAX_SECONDS:g} s") from None
    except ClientDisconnect:
        raise CancelledCallError("the caller went away") from None


async def _limited(request: Request, limit: int, name: str) -> AsyncGenerator[bytes, None]:
    promised = request.headers.get("content-length", "")
    if promised.isdigit() and int(promised[:18]) > limit:
        raise TooLargeError(f"{name}: the body has {promised[:18]} bytes, at most {limit}", field="body")
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLargeError(f"{name}: the body has over {limit} bytes", field="body")
        yield chunk
