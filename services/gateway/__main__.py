"""`python -m services.gateway` runs the gateway."""

from __future__ import annotations

import grpc

from services.gateway.answering import Answering
from services.gateway.service import VisualSearchServicer
from services.gateway.settings import GatewaySettings
from services.runtime.server import Lifecycle, run
from vitrine.engine import SearchEngine
from vitrine.v1 import search_pb2_grpc


class Gateway:
    """The gateway, as the runtime sees it."""

    grpc_services = ("vitrine.v1.VisualSearch",)

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._engine: SearchEngine | None = None

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Opens the channels (they connect when used) and registers the servicer."""
        self._engine = SearchEngine(self._settings.embedder, self._settings.indexers)
        answering = Answering(self._engine, self._settings)
        search_pb2_grpc.add_VisualSearchServicer_to_server(VisualSearchServicer(answering, self._settings), server)

    async def stop(self) -> None:
        """Closes the channels."""
        if self._engine is not None:
            await self._engine.close()


if __name__ == "__main__":
    run(GatewaySettings, Gateway)
