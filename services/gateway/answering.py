"""What the gateway answers, whoever asks and however: `vitrine.engine`, with metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.gateway.measuring import measured
from services.gateway.settings import GatewaySettings
from vitrine.engine import SearchEngine
from vitrine.errors import UnimplementedError
from vitrine.v1 import search_pb2


class Answering:
    """One method for each call; gRPC and HTTP both come here. `timeout` is what the caller allows, in seconds."""

    def __init__(self, engine: SearchEngine, settings: GatewaySettings) -> None:
        self._engine = engine
        self._settings = settings

    @measured("Search")
    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        """Ranks products by likeness to the query; raises as `SearchEngine.search`."""
        return await self._engine.search(request, timeout)

    @measured("Recognize")
    async def recognize(self, request: search_pb2.RecognizeRequest, timeout: float) -> search_pb2.RecognizeResponse:
        """Not in this version."""
        raise UnimplementedError("Recognize is not in this version")

    @measured("Recommend")
    async def recommend(self, request: search_pb2.RecommendRequest, timeout: float) -> search_pb2.RecommendResponse:
        """Ranks products by what a shopper liked; raises as `SearchEngine.recommend`."""
        return await self._engine.recommend(request, timeout)

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse:
        """Reads one product."""
        return await self._engine.get(request, timeout)

    async def record_feedback(
        self, request: search_pb2.RecordFeedbackRequest, timeout: float
    ) -> search_pb2.RecordFeedbackResponse:
        """Not in this version."""
        raise UnimplementedError("RecordFeedback is not in this version")

    async def export_feedback(
        self, request: search_pb2.ExportFeedbackRequest
    ) -> AsyncIterator[search_pb2.ExportFeedbackResponse]:
        """Not in this version."""
        raise UnimplementedError("ExportFeedback is not in this version")
        yield  # what makes it a generator

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse:
        """Probes every component."""
        return await self._engine.status(min(self._settings.status_timeout_seconds, timeout))
