"""Between JSON and the contract's messages, in both directions; one function for each message."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from services.gateway.http import answers, requests
from services.gateway.http.pictures.address import picture_url
from vitrine import attributes
from vitrine.errors import InvalidArgumentError
from vitrine.v1 import common_pb2, search_pb2


def search_request(
    body: requests.SearchBody, collection: str, files: Sequence[tuple[str, bytes]] = ()
) -> search_pb2.SearchRequest:
    """Converts a search; `files` by form field, each taken by the part that names it or else a part of its own.

    Raises:
        InvalidArgumentError: A part is not exactly one thing, names a missing file, or the page token is damaged.
    """
    request = search_pb2.SearchRequest(
        collection=collection,
        k=body.k,
        filter_text=body.filter_text,
        exclude_product_ids=body.exclude_product_ids,
        min_score=body.min_score,
        min_coverage=body.min_coverage,
        ef=body.ef,
        exact=body.exact,
        top_tags=body.top_tags,
        page_token=_token(body.page_token),
        explain=body.explain,
        with_images=body.with_images,
        ranking=_ranking(body.ranking) if body.ranking is not None else None,
        allow_partial=body.allow_partial,
        user_key=body.user_key,
        facets=body.facets,
        min_generations={int(index): generation for index, generation in body.min_generations.items()},
    )
    named = {part.image for part in body.query}
    request.query.extend(search_pb2.QueryPart(image=data) for name, data in files if name not in named)
    by_name = dict(files)
    request.query.extend(_part(f"query[{index}]", part, by_name) for index, part in enumerate(body.query))
    return request


def recognize_request(body: requests.RecognizeBody, collection: str, image: bytes) -> search_pb2.RecognizeRequest:
    """Converts what is to be recognised."""
    return search_pb2.RecognizeRequest(
        collection=collection,
        image=image,
        box=_box(body.box),
        auto_crop=body.auto_crop,
        filter_text=body.filter_text,
        min_confidence=body.min_confidence,
        alternatives=body.alternatives,
        allow_partial=body.allow_partial,
    )


def feedback_request(body: requests.FeedbackBody) -> search_pb2.RecordFeedbackRequest:
    """Converts what a shopper did."""
    return search_pb2.RecordFeedbackRequest(
        query_id=body.query_id,
        product_id=body.product_id,
        action=search_pb2.FeedbackAction.Value(f"FEEDBACK_ACTION_{body.action.upper()}"),
        user_key=body.user_key,
    )


def search_answer(response: search_pb2.SearchResponse, collection: str, *, pictures: bool) -> answers.SearchAnswer:
    """Converts an answer; `collection` is what the request named, `pictures` whether the gateway serves any."""
    return answers.SearchAnswer(
        query_id=response.query_id,
        collection=response.collection or collection,
        results=[_product(each, collection, pictures=pictures) for each in response.results],
        coverage=_coverage(response.coverage),
        degraded=_reasons(response.degraded),
        fingerprint=response.fingerprint,
        timings=_timings(response.timings),
        tags=[answers.Tag(label=each.label, probability=each.probability) for each in response.tags],
        next_page_token=base64.urlsafe_b64encode(response.next_page_token).decode(),
        subject=_box_back(response.subject) if response.HasField("subject") else None,
        facets=[
            answers.Facet(
                attribute=facet.attribute,
                values=[
                    answers.FacetValue(value=attributes.from_proto(each.value), count=each.count)
                    for each in facet.values
                ],
            )
            for facet in response.facets
        ],
    )


def recognize_answer(
    response: search_pb2.RecognizeResponse, collection: str, *, pictures: bool
) -> answers.RecognizeAnswer:
    """Converts an answer."""
    found = response.product if response.HasField("product") else None
    return answers.RecognizeAnswer(
        query_id=response.query_id,
        product=_product(found, collection, pictures=pictures) if found is not None else None,
        confidence=response.confidence,
        min_confidence=response.min_confidence,
        calibrated=response.calibrated,
        votes=[
            answers.AttributeVote(
                attribute=each.attribute, value=attributes.from_proto(each.value), confidence=each.confidence
            )
            for each in response.votes
        ],
        alternatives=[_product(each, collection, pictures=pictures) for each in response.alternatives],
        coverage=_coverage(response.coverage),
        degraded=_reasons(response.degraded),
        fingerprint=response.fingerprint,
        timings=_timings(response.timings),
        subject=_box_back(response.subject) if response.HasField("subject") else None,
    )


def product_answer(response: search_pb2.GetResponse, collection: str, *, pictures: bool) -> answers.StoredProduct:
    """Converts a stored product."""
    return answers.StoredProduct(
        product_id=response.product_id,
        images=[
            answers.StoredImage(
                image_id=each.key.image_id,
                image_url=picture_url(collection, response.product_id, each.key.image_id, each.image_uri)
                if pictures
                else None,
                attributes={name: attributes.from_proto(value) for name, value in each.attributes.items()},
            )
            for each in response.images
        ],
    )


def status_answer(response: search_pb2.GetStatusResponse) -> answers.StatusAnswer:
    """Converts an answer; addresses inside the deployment are not for browsers."""
    return answers.StatusAnswer(
        model=response.model,
        fingerprint=response.fingerprint,
        components=[
            answers.Component(
                component=each.component,
                healthy=each.healthy,
                detail=each.detail,
                seconds=each.seconds,
            )
            for each in response.components
        ],
        collections=[
            answers.CollectionInfo(
                name=each.name,
                points=each.points,
                products=each.products,
                dim=each.dim,
                fingerprint=each.fingerprint,
                shards_total=each.shards_total,
                shards_answered=each.shards_answered,
            )
            for each in response.collections
        ],
    )


def _part(path: str, part: requests.QueryPart, files: Mapping[str, bytes]) -> search_pb2.QueryPart:
    given = [name for name in ("image", "stored", "text", "vector") if getattr(part, name) is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise InvalidArgumentError(
            f"{path} must have exactly one of image, stored, text, vector; got {found}", field=path
        )
    message = search_pb2.QueryPart(box=_box(part.box), weight=part.weight, auto_crop=part.auto_crop)
    if part.image is not None:
        if part.image not in files:
            raise InvalidArgumentError(f"{path}.image: the form has no file {part.image!r}", field=f"{path}.image")
        message.image = files[part.image]
    elif part.stored is not None:
        message.stored.CopyFrom(common_pb2.PointKey(product_id=part.stored.product_id, image_id=part.stored.image_id))
    elif part.text is not None:
        message.text = part.text
    elif part.vector is not None:
        message.vector.CopyFrom(_vector(part.vector))
    return message


def _vector(vector: requests.QueryVector) -> common_pb2.Vector:
    with np.errstate(over="ignore"):  # what is no float32 becomes infinite, which an index refuses
        data = np.asarray(vector.values, "<f4").tobytes()
    return common_pb2.Vector(
        data=data,
        dtype=common_pb2.VECTOR_DTYPE_FLOAT32,
        dim=len(vector.values),
        fingerprint=vector.fingerprint,
    )


def _ranking(ranking: requests.Ranking) -> search_pb2.Ranking:
    return search_pb2.Ranking(
        in_stock_attribute=ranking.in_stock_attribute,
        boosts=[search_pb2.Boost(filter_text=each.filter_text, amount=each.amount) for each in ranking.boosts],
        caps=[search_pb2.Cap(attribute=each.attribute, most=each.most) for each in ranking.caps],
        diversity=ranking.diversity,
        candidates=ranking.candidates,
        replace=ranking.replace,
    )


def _box(box: requests.Box | None) -> common_pb2.Box | None:
    return None if box is None else common_pb2.Box(x=box.x, y=box.y, width=box.width, height=box.height)


def _box_back(box: common_pb2.Box) -> requests.Box:
    return requests.Box.model_construct(x=box.x, y=box.y, width=box.width, height=box.height)


def _token(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgumentError("page_token is damaged", field="page_token") from None


def _product(product: search_pb2.ProductResult, collection: str, *, pictures: bool) -> answers.Product:
    def url(image_id: str, uri: str) -> str | None:
        return picture_url(collection, product.product_id, image_id, uri) if pictures else None

    return answers.Product(
        rank=product.rank,
        product_id=product.product_id,
        score=product.score,
        image_id=product.image_id,
        image_url=url(product.image_id, product.image_uri),
        attributes={name: attributes.from_proto(value) for name, value in product.attributes.items()},
        images=[
            answers.ImageMatch(image_id=each.image_id, score=each.score, image_url=url(each.image_id, each.image_uri))
            for each in product.images
        ],
        explanation=[
            answers.ScorePart(stage=each.stage, score=each.score, note=each.note) for each in product.explanation
        ],
    )


def _coverage(coverage: search_pb2.Coverage) -> answers.Coverage:
    return answers.Coverage(
        shards_total=coverage.shards_total,
        shards_answered=coverage.shards_answered,
        shards_failed=coverage.shards_failed,
        shards_timed_out=coverage.shards_timed_out,
        shards_skipped=coverage.shards_skipped,
        points=coverage.points,
        generations={str(index): generation for index, generation in coverage.generations.items()},
    )


def _reasons(reasons: Iterable[search_pb2.DegradedReason.ValueType]) -> list[str]:
    return [search_pb2.DegradedReason.Name(each).removeprefix("DEGRADED_REASON_").lower() for each in reasons]


def _timings(timings: Iterable[common_pb2.StageTiming]) -> list[answers.Timing]:
    return [answers.Timing(stage=each.stage, seconds=each.seconds) for each in timings]
