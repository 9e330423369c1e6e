"""What the API offers, once: routes and the OpenAPI document are both made of this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.responses import Response

from services.gateway.http import answers, requests
from services.gateway.http.api import Api
from services.gateway.http.call import Call


@dataclass(frozen=True)
class Operation:
    """One method on one path."""

    method: str
    path: str
    """With names in braces."""
    route: str
    """The same for the router, which must not split an id at an escaped slash."""
    name: str
    rpc: str
    """What it stands for over gRPC, whose rule of who may call is its own."""
    summary: str
    handler: Callable[[Api, Call], Awaitable[Response]]
    query: type[BaseModel] | None = None
    json_body: type[BaseModel] | None = None
    form_body: type[BaseModel] | None = None
    form_request: type[BaseModel] | None = None
    """What the form's field `request` may hold instead of the other fields."""
    answer: type[BaseModel] | None = None
    """None: no content, unless `answer_media` says what."""
    answer_media: tuple[str, ...] = ()


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/search",
        route="/v1/search",
        name="search",
        rpc="/vitrine.v1.VisualSearch/Search",
        summary="Products that look like a photo, a stored product, a vector, or words; or several of them at once",
        handler=Api.search,
        json_body=requests.SearchBody,
        form_body=requests.SearchForm,
        form_request=requests.SearchBody,
        answer=answers.SearchAnswer,
    ),
    Operation(
        method="GET",
        path="/v1/similar/{product_id}",
        route="/v1/similar/{product_id:path}",
        name="similar",
        rpc="/vitrine.v1.VisualSearch/Search",
        summary="Products that look like a stored one",
        handler=Api.similar,
        query=requests.SimilarQuery,
        answer=answers.SearchAnswer,
    ),
    Operation(
        method="POST",
        path="/v1/recognize",
        route="/v1/recognize",
        name="recognize",
        rpc="/vitrine.v1.VisualSearch/Recognize",
        summary="Which product a photo shows, or none",
        handler=Api.recognize,
        form_body=requests.RecognizeBody,
        form_request=requests.RecognizeBody,
        answer=answers.RecognizeAnswer,
    ),
    Operation(
        method="POST",
        path="/v1/feedback",
        route="/v1/feedback",
        name="feedback",
        rpc="/vitrine.v1.VisualSearch/RecordFeedback",
        summary="Records what a shopper did with a product that a search showed",
        handler=Api.feedback,
        json_body=requests.FeedbackBody,
    ),
    Operation(
        method="GET",
        path="/v1/status",
        route="/v1/status",
        name="status",
        rpc="/vitrine.v1.VisualSearch/GetStatus",
        summary="What is up, what is served, and how much of it",
        handler=Api.status,
        answer=answers.StatusAnswer,
    ),
    Operation(
        method="GET",
        path="/v1/products/{collection}/{product_id}",
        route="/v1/products/{key:path}",
        name="product",
        rpc="/vitrine.v1.VisualSearch/Get",
        summary="A stored product with all its images",
        handler=Api.product,
        answer=answers.StoredProduct,
    ),
    Operation(
        method="GET",
        path="/v1/images/{collection}/{product_id}/{image_id}",
        route="/v1/images/{key:path}",
        name="picture",
        rpc="/vitrine.v1.VisualSearch/Get",
        summary="A product's picture",
        handler=Api.picture,
        query=requests.PictureQuery,
        answer_media=("image/jpeg", "image/png", "image/webp"),
    ),
)
