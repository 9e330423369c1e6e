"""Puts the HTTP application together: the API's operations, health, the description, and the page."""

from __future__ import annotations

import json
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from services.gateway.answering import Answering
from services.gateway.http.api import Api
from services.gateway.http.envelope import Endpoint, Envelope
from services.gateway.http.openapi import build_document
from services.gateway.http.operations import OPERATIONS
from services.gateway.http.page import Page
from services.gateway.http.pictures.serving import Pictures
from services.gateway.settings import GatewaySettings
from services.runtime.server import Lifecycle


def build_app(answering: Answering, pictures: Pictures, settings: GatewaySettings, lifecycle: Lifecycle) -> Envelope:
    """Returns the ASGI application."""
    api = Api(answering, pictures, settings.max_message_bytes)
    page = Page()
    document = json.dumps(build_document()).encode()

    async def describe(request: Request) -> Response:
        return Response(document, media_type="application/json")

    async def tell_health(request: Request) -> Response:
        told = "serving" if lifecycle.serving else "not serving"
        body = json.dumps({"status": told}).encode()
        return Response(body, 200 if lifecycle.serving else 503, media_type="application/json")

    operations = [
        Route(
            each.route,
            Endpoint(
                partial(each.handler, api),
                each.rpc,
                lifecycle.guard,
                lifecycle.in_flight,
                settings.default_deadline_seconds,
            ),
            methods=[each.method],
        )
        for each in OPERATIONS
    ]
    return Envelope(
        Router(
            [
                *operations,
                Route("/healthz", tell_health),
                Route("/openapi.json", describe),
                Route("/static/{name}", page.file),
                Route("/", page.index),
            ],
            redirect_slashes=False,
        )
    )
