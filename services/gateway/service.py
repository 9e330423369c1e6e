"""`VisualSearch` over gRPC: what `answering` says, with the caller's deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.gateway.answering import Answering
from services.gateway.settings import GatewaySettings
from services.runtime.interceptor import Context
from vitrine.v1 import search_pb2, search_pb2_grpc


class VisualSearchServicer(search_pb2_grpc.VisualSearchServicer):
    """Answers what `search.proto` promises."""

    def __init__(self, answering: Answering, settings: GatewaySettings) -> None:
        self._answering = answering
        self._settings = settings

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        """Ranks products by likeness to the query."""
        return await self._answering.search(request, self._time_left(context))

    async def Recognize(self, request: search_pb2.RecognizeRequest, context: Context) -> search_pb2.RecognizeResponse:
        """Says which product an image shows, or none."""
        return await self._answering.recognize(request, self._time_left(context))

    async def Recommend(self, request: search_pb2.RecommendRequest, context: Context) -> search_pb2.RecommendResponse:
        """Ranks products by what a shopper liked."""
        return await self._answering.recommend(request, self._time_left(context))

    async def Get(self, request: search_pb2.GetRequest, context: Context) -> search_pb2.GetResponse:
        """Reads one product."""
        return await self._answering.get(request, self._time_left(context))

    async def RecordFeedback(
        self, request: search_pb2.RecordFeedbackRequest, context: Context
    ) -> search_pb2.RecordFeedbackResponse:
        """Records what a shopper did with a result."""
        return await self._answering.record_feedback(request, self._time_left(context))

    async def ExportFeedback(
        self, request: search_pb2.ExportFeedbackRequest, context: Context
    ) -> AsyncIterator[search_pb2.ExportFeedbackResponse]:
        """Streams what is recorded."""
        async for page in self._answering.export_feedback(request):
            yield page

    async def GetStatus(self, request: search_pb2.GetStatusRequest, context: Context) -> search_pb2.GetStatusResponse:
        """Probes every component."""
        return await self._answering.status(self._time_left(context))

    def _time_left(self, context: Context) -> float:
        longest = self._settings.default_deadline_seconds
        remaining = context.time_remaining()
        return longest if remaining is None else min(remaining, longest)
