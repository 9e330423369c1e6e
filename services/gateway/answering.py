"""What the gateway answers, whoever asks and however: `vitrine.engine`, with metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.gateway import metrics
from services.gateway.settings import GatewaySettings
from vitrine.engine import SearchEngine
from vitrine.errors import UnimplementedError
from vitrine.v1 import search_pb2


class Answering:
    """One method for each call; gRPC and HTTP both come here. `timeout` is what the caller allows, in seconds."""

    def __init__(self, engine: SearchEngine, settings: GatewaySettings) -> None:
        self._engine = engine
        self._settings = settings

    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        """Ranks products by likeness to the query; raises as `SearchEngine.search`."""
        response = await self._engine.search(request, timeout)
        _measure(response)
        return response

    async def recognize(self, request: search_pb2.RecognizeRequest, timeout: float) -> search_pb2.RecognizeResponse:
        """Not in this version."""
        raise UnimplementedError("Recognize is not in this version")

    async def recommend(self, request: search_pb2.RecommendRequest, timeout: float) -> search_pb2.RecommendResponse:
        """Ranks products by what a shopper liked; raises as `SearchEngine.recommend`."""
        response = await self._engine.recommend(request, timeout)
        _measure(response)
        return response

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


def _measure(response: search_pb2.SearchResponse | search_pb2.RecommendResponse) -> None:
    metrics.COVERAGE.observe(response.coverage.shards_answered / response.coverage.shards_total)
    for reason in response.degraded:
        metrics.DEGRADED.labels(search_pb2.DegradedReason.Name(reason)).inc()
    for timing in response.timings:
        metrics.STAGE_SECONDS.labels(timing.stage).observe(timing.seconds)
