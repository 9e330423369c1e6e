"""`VisualSearch` over gRPC: `vitrine.engine`, with the caller's deadline and with metrics."""

from __future__ import annotations

from services.gateway import metrics
from services.gateway.settings import GatewaySettings
from services.runtime.interceptor import Context
from vitrine.engine import SearchEngine
from vitrine.errors import UnimplementedError
from vitrine.v1 import search_pb2, search_pb2_grpc


class VisualSearchServicer(search_pb2_grpc.VisualSearchServicer):
    """Answers what `search.proto` promises."""

    def __init__(self, engine: SearchEngine, settings: GatewaySettings) -> None:
        self._engine = engine
        self._settings = settings

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        """Ranks products by likeness to the query."""
        response = await self._engine.search(request, self._time_left(context))
        metrics.SEARCHES.labels(request.query[0].WhichOneof("query")).inc()
        metrics.COVERAGE.observe(response.coverage.shards_answered / response.coverage.shards_total)
        metrics.RESULTS.observe(len(response.results))
        for reason in response.degraded:
            metrics.DEGRADED.labels(search_pb2.DegradedReason.Name(reason)).inc()
        for timing in response.timings:
            metrics.STAGE_SECONDS.labels(timing.stage).observe(timing.seconds)
        return response

    async def Recognize(self, request: search_pb2.RecognizeRequest, context: Context) -> search_pb2.RecognizeResponse:
        """Not in this version."""
        raise UnimplementedError("Recognize is not in this version")

    async def Recommend(self, request: search_pb2.RecommendRequest, context: Context) -> search_pb2.RecommendResponse:
        """Not in this version."""
        raise UnimplementedError("Recommend is not in this version")

    async def Get(self, request: search_pb2.GetRequest, context: Context) -> search_pb2.GetResponse:
        """Reads one product."""
        return await self._engine.get(request, self._time_left(context))

    async def RecordFeedback(
        self, request: search_pb2.RecordFeedbackRequest, context: Context
    ) -> search_pb2.RecordFeedbackResponse:
        """Not in this version."""
        raise UnimplementedError("RecordFeedback is not in this version")

    async def GetStatus(self, request: search_pb2.GetStatusRequest, context: Context) -> search_pb2.GetStatusResponse:
        """Probes every component."""
        return await self._engine.status(min(self._settings.status_timeout_seconds, self._time_left(context)))

    def _time_left(self, context: Context) -> float:
        longest = self._settings.default_deadline_seconds
        remaining = context.time_remaining()
        return longest if remaining is None else min(remaining, longest)
