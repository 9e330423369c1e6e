"""The operations of the API: what each reads, whom it asks, what it answers."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from services.gateway.answering import Answering
from services.gateway.http import convert
from services.gateway.http.body import (
    Form,
    media_type,
    parse_fields,
    parse_json,
    read_form,
    read_json,
    unsupported,
)
from services.gateway.http.call import Call
from services.gateway.http.only_collection import OnlyCollection
from services.gateway.http.paths import ids_of
from services.gateway.http.pictures.address import PICTURES
from services.gateway.http.pictures.serving import Pictures
from services.gateway.http.requests import (
    FeedbackBody,
    NoQuery,
    PictureQuery,
    RecognizeBody,
    SearchBody,
    SearchForm,
    SimilarQuery,
)
from vitrine.errors import InvalidArgumentError, NotFoundError
from vitrine.v1 import search_pb2

_FORM = "multipart/form-data"
_JSON = "application/json"
_WHOLE_REQUEST = "request"
_SIMILAR = "/v1/similar/"
_PRODUCTS = "/v1/products/"

Body = TypeVar("Body", bound=BaseModel)


class Api:
    """One method for each operation."""

    def __init__(self, answering: Answering, pictures: Pictures, max_body_bytes: int) -> None:
        self._answering = answering
        self._pictures = pictures
        self._max_body_bytes = max_body_bytes
        self._only = OnlyCollection(answering)

    async def search(self, call: Call) -> Response:
        """POST /v1/search."""
        match media_type(call.request):
            case "application/json":
                body, files = await read_json(call.request, SearchBody), []
            case "multipart/form-data":
                form = await read_form(call.request, self._max_body_bytes)
                body, files = _search_of(form), form.files
            case _:
                raise unsupported(_FORM, _JSON)
        return await self._search(call, body, files)

    async def similar(self, call: Call) -> Response:
        """GET /v1/similar/{product_id}."""
        (product_id,) = ids_of(call.request, _SIMILAR, 1)
        query = parse_fields(call.request.query_params.multi_items(), SimilarQuery)
        return await self._search(call, query.body(product_id), [])

    async def recognize(self, call: Call) -> Response:
        """POST /v1/recognize."""
        if media_type(call.request) != _FORM:
            raise unsupported(_FORM)
        form = await read_form(call.request, self._max_body_bytes)
        body = _whole_request(form, RecognizeBody) or parse_fields(form.fields, RecognizeBody)
        if len(form.files) != 1:
            raise InvalidArgumentError(f"the form has {len(form.files)} files, must have one image", field="image")
        call.begin(body.timeout_ms)
        collection = await self._collection(call, body.collection)
        request = convert.recognize_request(body, collection, form.files[0][1])
        response = await call.ask(self._answering.recognize, request)
        return _json(convert.recognize_answer(response, collection, pictures=self._pictures.served))

    async def feedback(self, call: Call) -> Response:
        """POST /v1/feedback."""
        body = await read_json(call.request, FeedbackBody)
        call.begin(body.timeout_ms)
        request = convert.feedback_request(body)
        await call.ask(self._answering.record_feedback, request)
        return Response(status_code=204)

    async def status(self, call: Call) -> Response:
        """GET /v1/status."""
        response = await call.within_deadline(self._answering.status)
        call.asker.prune(response)
        return _json(convert.status_answer(response))

    async def product(self, call: Call) -> Response:
        """GET /v1/products/{collection}/{product_id}."""
        collection, product_id = ids_of(call.request, _PRODUCTS, 2)
        parse_fields(call.request.query_params.multi_items(), NoQuery)
        wanted = search_pb2.GetRequest(collection=collection, product_id=product_id)
        found = await call.ask(self._answering.get, wanted)
        return _json(convert.product_answer(found, collection, pictures=self._pictures.served))

    async def picture(self, call: Call) -> Response:
        """GET /v1/images/{collection}/{product_id}/{image_id}."""
        collection, product_id, image_id = ids_of(call.request, PICTURES, 3)
        query = parse_fields(call.request.query_params.multi_items(), PictureQuery)
        wanted = search_pb2.GetRequest(collection=collection, product_id=product_id)
        found = await call.ask(self._answering.get, wanted)
        point = next((each for each in found.images if each.key.image_id == image_id), None)
        if point is None:
            raise NotFoundError(f"no image {image_id!r} of product {product_id!r} in collection {collection!r}")
        return await call.within_deadline(lambda _: self._pictures.answer(call.request, point, query.width))

    async def _search(self, call: Call, body: SearchBody, files: list[tuple[str, bytes]]) -> Response:
        call.begin(body.timeout_ms)
        collection = await self._collection(call, body.collection)
        request = convert.search_request(body, collection, files)
        response = await call.ask(self._answering.search, request)
        return _json(convert.search_answer(response, collection, pictures=self._pictures.served))

    async def _collection(self, call: Call, given: str) -> str:
        if not given and not call.asker.sees_all:  # the only one of all is not the only one of its own
            raise InvalidArgumentError("collection is missing: name one of yours", field="collection")
        return given or await call.within_deadline(self._only.name)


def _search_of(form: Form) -> SearchBody:
    whole = _whole_request(form, SearchBody)
    return whole or parse_fields(form.fields, SearchForm).body([name for name, _ in form.files])


def _whole_request(form: Form, kind: type[Body]) -> Body | None:
    """Returns what the field `request` says as JSON; None: there is none, the fields themselves say it."""
    names = [name for name, _ in form.fields]
    if _WHOLE_REQUEST not in names:
        return None
    if len(names) > 1:
        raise InvalidArgumentError("request stands for all other fields: send it or them", field=_WHOLE_REQUEST)
    return parse_json(form.fields[0][1], kind)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type=_JSON)
