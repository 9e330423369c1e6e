"""`Multiplex` over gRPC."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import grpc

from services.runtime.interceptor import Context, InFlight, ServiceInterceptor, standing
from services.runtime.multiplex.call_stream import CallStream
from services.runtime.settings import ServiceSettings
from vitrine.v1 import multiplex_pb2, multiplex_pb2_grpc

MULTIPLEX_SERVICE: Final = "vitrine.v1.Multiplex"

# A client that was asked to leave does so at once; one that does not is cut off.
_LEAVE_SECONDS = 5.0


def register_multiplex(
    server: grpc.aio.Server,
    interceptor: ServiceInterceptor,
    in_flight: InFlight,
    draining: asyncio.Event,
    settings: ServiceSettings,
) -> None:
    """Lets a server take the unary calls of all its services on streams too."""
    servicer = MultiplexServicer(interceptor, in_flight, draining, settings)
    multiplex_pb2_grpc.add_MultiplexServicer_to_server(servicer, server)


class MultiplexServicer(multiplex_pb2_grpc.MultiplexServicer):
    """Answers what `multiplex.proto` promises."""

    def __init__(
        self, interceptor: ServiceInterceptor, in_flight: InFlight, draining: asyncio.Event, settings: ServiceSettings
    ) -> None:
        self._interceptor = interceptor
        self._in_flight = in_flight
        self._draining = draining
        self._most = settings.max_streams_per_connection
        self._name = uuid.uuid4().hex
        self._age = settings.max_connection_age_seconds or None

    @standing
    async def Exchange(
        self, request_iterator: AsyncIterator[multiplex_pb2.ExchangeRequest], context: Context
    ) -> AsyncIterator[multiplex_pb2.ExchangeResponse]:
        """Serves the calls that come on one stream."""
        calls = CallStream(self._interceptor, context, self._most)
        retiring = asyncio.create_task(self._retire(calls))
        with self._in_flight.hold():
            try:
                yield multiplex_pb2.ExchangeResponse(server=self._name)
                async for response in calls.run(request_iterator):
                    yield response
            finally:
                retiring.cancel()

    async def _retire(self, calls: CallStream) -> None:
        """Asks the client to leave when the server drains, or the stream is as old as a connection gets."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._age):
                await self._draining.wait()
        calls.say_goodbye()
        await asyncio.sleep(_LEAVE_SECONDS)
        calls.stop_reading()
