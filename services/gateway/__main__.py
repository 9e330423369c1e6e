"""`python -m services.gateway` runs the gateway."""

from __future__ import annotations

import asyncio

import grpc
import structlog

from services.gateway.answer_metrics import AnswerObserver
from services.gateway.answering import Answering
from services.gateway.calibrations import load_shelf
from services.gateway.feedback.opening import open_feedback
from services.gateway.feedback.recorder import FeedbackRecorder
from services.gateway.http.app import build_app
from services.gateway.http.pictures.serving import Pictures
from services.gateway.http.server import HttpServer
from services.gateway.observing import ShardMetrics
from services.gateway.plugins import load_scorer, load_text_encoder
from services.gateway.service import VisualSearchServicer
from services.gateway.settings import GatewaySettings
from services.runtime.server import Lifecycle, StartError, run
from vitrine.engine import SearchEngine
from vitrine.v1 import search_pb2_grpc

log = structlog.get_logger()

# What `reload` takes; everything else is read at start only.
_RELOADED = frozenset({"calibration_dir"})


class Gateway:
    """The gateway, as the runtime sees it."""

    grpc_services = ("vitrine.v1.VisualSearch",)

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._engine: SearchEngine | None = None
        self._pictures: Pictures | None = None
        self._http: HttpServer | None = None
        self._feedback: FeedbackRecorder | None = None

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Opens the channels (they connect when used), registers the servicer, and serves HTTP where a port is set."""
        settings = self._settings
        self._feedback = open_feedback(settings)
        self._engine = SearchEngine(
            settings.embedder,
            settings.indexers,
            settings.peer_credentials(),
            rankings={name: each.plan for name, each in settings.ranking.items()},
            features=load_scorer("features", settings.features),
            taste=load_scorer("taste", settings.taste),
            text_encoder=load_text_encoder("text_encoder", settings.text_encoder),
            stage_seconds=settings.ranking_stage_seconds,
            policy=settings.shard_policy,
            observer=ShardMetrics(),
            answer_observer=AnswerObserver(self._feedback),
            shelf=await asyncio.to_thread(load_shelf, settings.calibration_dir),
        )
        answering = Answering(self._engine, self._settings, self._feedback)
        search_pb2_grpc.add_VisualSearchServicer_to_server(VisualSearchServicer(answering, self._settings), server)
        if self._settings.http_port:
            self._serve_http(answering, lifecycle)

    async def reload(self, settings: GatewaySettings) -> None:
        """Reads the calibrations again; what else changed waits for a restart, and is logged."""
        assert self._engine is not None
        changed = {
            name
            for name in GatewaySettings.model_fields
            if name not in _RELOADED and getattr(settings, name) != getattr(self._settings, name)
        }
        if changed:
            log.warning("needs a restart to take effect", settings=sorted(changed))
        self._engine.shelf = await asyncio.to_thread(load_shelf, settings.calibration_dir)

    async def stop(self) -> None:
        """Ends HTTP and closes the channels."""
        if self._http is not None:
            await self._http.stop()
        if self._pictures is not None:
            self._pictures.close()
        if self._engine is not None:
            await self._engine.close()
        if self._feedback is not None:
            await self._feedback.close()

    def _serve_http(self, answering: Answering, lifecycle: Lifecycle) -> None:
        settings = self._settings
        try:
            self._pictures = Pictures(settings.image_roots, settings.image_max_bytes)
        except NotADirectoryError as error:
            raise StartError(str(error)) from None
        app = build_app(answering, self._pictures, settings, lifecycle)
        context = None if lifecycle.tls is None else lifecycle.tls.http_context()
        self._http = HttpServer(app, settings.host, settings.http_port, 4 * settings.max_concurrent_rpcs, context)
        self._http.start(lifecycle)


if __name__ == "__main__":
    run(GatewaySettings, Gateway)
