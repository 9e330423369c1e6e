"""What the gateway answers, whoever asks and however: `vitrine.engine`, with metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.gateway import metrics
from services.gateway.feedback.recorder import FeedbackRecorder
from services.gateway.measuring import measured
from services.gateway.settings import GatewaySettings
from vitrine.engine import SearchEngine
from vitrine.errors import DeadlineError, PreconditionError
from vitrine.v1 import search_pb2


class Answering:
    """One method for each call; gRPC and HTTP both come here. `timeout` is what the caller allows, in seconds."""

    def __init__(
        self, engine: SearchEngine, settings: GatewaySettings, feedback: FeedbackRecorder | None = None
    ) -> None:
        """`feedback` None: none is kept."""
        self._engine = engine
        self._settings = settings
        self._feedback = feedback

    @measured("Search")
    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        """Ranks products by likeness to the query; raises as `SearchEngine.search`."""
        return await self._engine.search(request, timeout)

    @measured("Recognize")
    async def recognize(self, request: search_pb2.RecognizeRequest, timeout: float) -> search_pb2.RecognizeResponse:
        """Says which product an image shows, or none; raises as `SearchEngine.recognize`."""
        response = await self._engine.recognize(request, timeout)
        result = "product" if response.HasField("product") else "none"
        metrics.RECOGNITIONS.labels(result, str(response.calibrated).lower()).inc()
        metrics.RECOGNITION_CONFIDENCE.observe(response.confidence)
        return response

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
        """Keeps what a shopper did; raises as `FeedbackRecorder.record`, or PreconditionError where none is kept."""
        feedback = self._kept()
        try:
            async with asyncio.timeout(timeout):
                await feedback.record(request)
        except TimeoutError:
            raise DeadlineError("the feedback was not on disk in time; it may be soon") from None
        return search_pb2.RecordFeedbackResponse()

    async def export_feedback(
        self, request: search_pb2.ExportFeedbackRequest
    ) -> AsyncIterator[search_pb2.ExportFeedbackResponse]:
        """Yields what is kept, oldest first; raises PreconditionError where none is."""
        async for page in self._kept().pages(request):
            yield search_pb2.ExportFeedbackResponse(queries=page)

    def _kept(self) -> FeedbackRecorder:
        if self._feedback is None:
            raise PreconditionError("this gateway keeps no feedback: set VITRINE_GATEWAY_DATA_DIR")
        return self._feedback

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse:
        """Probes every component."""
        return await self._engine.status(min(self._settings.status_timeout_seconds, timeout))
