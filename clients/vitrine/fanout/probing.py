"""Health checks of shards that are not asked, so that no caller has to find out whether they are back."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vitrine.fanout.breaker import Breaker


class Prober:
    """Checks one shard's health while its breaker is open: one task, and only then."""

    def __init__(self, channel: grpc.aio.Channel, breaker: Breaker, timeout: float) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)
        self._breaker = breaker
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Sees to it that the shard is looked at; the breaker has opened."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._probe())

    async def stop(self) -> None:
        """Ends whatever is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _probe(self) -> None:
        clock = asyncio.get_running_loop().time
        while (at := self._breaker.probe_at) is not None:
            if (wait := at - clock()) > 0:
                await asyncio.sleep(wait)
            else:
                self._breaker.probed(await self._is_healthy(), clock())

    async def _is_healthy(self) -> bool:
        try:
            answer = await self._stub.Check(health_pb2.HealthCheckRequest(), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            # Whoever knows no health checks is at least there.
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
