"""Starts a service, keeps it healthy, and stops it without dropping what is in flight."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import grpc
import prometheus_client
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime import garbage, metrics
from services.runtime.interceptor import InFlight, ServiceInterceptor
from services.runtime.logs import configure_logs
from services.runtime.resources import export_process, watch_loop
from services.runtime.settings import ServiceSettings, Settings, SettingsError, load_settings
from services.runtime.tracing import start_tracing

log = structlog.get_logger()

_FIRST_FLIGHT_BYTES = 2**20
_DEFAULT_IN_FLIGHT = 256

Reloaded = TypeVar("Reloaded", bound=ServiceSettings, contravariant=True)


class StartError(Exception):
    """The service cannot start with what it was given; the message says why, without a traceback."""


@dataclass
class Lifecycle:
    """What a running service shares with its runtime."""

    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is going to stop: long-lived streams finish what they hold and end."""
    report_health: Callable[[bool], None] = lambda healthy: None
    """Told by a service that it cannot (False), or can again (True), do its work although it runs."""
    in_flight: InFlight = field(default_factory=lambda: InFlight(_DEFAULT_IN_FLIGHT))
    """Counts what is being served, over gRPC and otherwise."""
    serving: bool = False
    """Whether health checks are told SERVING."""

    def say_serving(self, serving: bool) -> None:
        """Notes what health checks are told."""
        self.serving = serving
        metrics.SERVING.set(serving)


@runtime_checkable
class Reloadable(Protocol[Reloaded]):
    """A service that takes some settings while it runs."""

    async def reload(self, settings: Reloaded) -> None:
        """Takes the settings that were read anew.

        Raises:
            StartError: It cannot work with them, and goes on with those it has.
        """


class Application(Protocol):
    """One service, as the runtime sees it."""

    @property
    def grpc_services(self) -> tuple[str, ...]:
        """Full names of the gRPC services it registers, for health and reflection."""

    async def start(self, server: grpc.aio.Server, lifecycle: Lifecycle) -> None:
        """Loads what it needs and registers its servicers; returns once it can serve.

        Raises:
            StartError: It cannot serve.
        """

    async def stop(self) -> None:
        """Releases everything; called after the last call has ended, and after a failed start."""


def run(kind: type[Settings], build: Callable[[Settings], Application]) -> None:
    """Runs a service until SIGTERM or SIGINT; exits with 0, or with 2 where it cannot start."""
    try:
        settings = load_settings(kind)
        configure_logs(settings.section, settings.log_level, settings.log_format)
        uvloop.run(serve(settings, build(settings)))
    except (SettingsError, StartError) as error:
        print(f"vitrine {kind.section}: {error}", file=sys.stderr)
        sys.exit(2)


async def serve(settings: ServiceSettings, application: Application) -> None:
    """Serves an application until the process is told to stop.

    Raises:
        StartError: A port is taken, or the application cannot start.
    """
    lifecycle = Lifecycle(in_flight=InFlight(settings.max_concurrent_rpcs))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    hang_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)

    server = grpc.aio.server(
        interceptors=[ServiceInterceptor(lifecycle.in_flight, settings.default_deadline_seconds)],
        options=server_options(settings),
    )
    address = f"{settings.host}:{settings.port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}: {error}") from None
    try:
        metrics_server, _ = prometheus_client.start_http_server(settings.resolved_metrics_port, settings.host)
    except OSError as error:
        raise StartError(f"cannot listen on {settings.host}:{settings.resolved_metrics_port}: {error}") from None

    export_process(settings.section)
    end_tracing = start_tracing(settings)

    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = (*application.grpc_services, health.SERVICE_NAME)
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)

    healthy: asyncio.Queue[bool] = asyncio.Queue()
    lifecycle.report_health = healthy.put_nowait
    began = time.perf_counter()
    attendants: list[asyncio.Task[None]] = []
    try:
        await application.start(server, lifecycle)
        await server.start()
        healthy.put_nowait(True)
        garbage.settle()
        attendants.append(asyncio.create_task(_tell_health(checker, ("", *names), healthy, lifecycle)))
        attendants.append(asyncio.create_task(_reload_on(hang_up, application, settings)))
        attendants.append(asyncio.create_task(watch_loop()))
        log.info("serving", address=address, start_seconds=round(time.perf_counter() - began, 3))
        await stop.wait()
        await _drain(settings, server, checker, lifecycle)
    finally:
        for attendant in attendants:
            attendant.cancel()
        await server.stop(0)
        await application.stop()
        metrics_server.shutdown()
        await asyncio.to_thread(end_tracing)
    log.info("stopped")


async def _tell_health(
    checker: health.aio.HealthServicer, names: Sequence[str], healthy: asyncio.Queue[bool], lifecycle: Lifecycle
) -> None:
    """Passes on what the service says of itself; the checker ignores it once the service drains."""
    status = health_pb2.HealthCheckResponse
    while True:
        serving = await healthy.get()
        for name in names:
            await checker.set(name, status.SERVING if serving else status.NOT_SERVING)
        lifecycle.say_serving(serving)


async def _reload_on(hang_up: asyncio.Event, application: Application, settings: ServiceSettings) -> None:
    """Reads the settings again at every SIGHUP; what is wrong with them is logged, and nothing changes."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        if not isinstance(application, Reloadable):
            log.info("nothing to reload: settings of this service are read at start")
            continue
        try:
            await application.reload(load_settings(type(settings)))
        except (SettingsError, StartError) as error:
            metrics.RELOADS.labels("failed").inc()
            log.error("not reloaded", error=str(error))
        except Exception:  # a defect must not make the next SIGHUP go unheard
            metrics.RELOADS.labels("failed").inc()
            log.exception("not reloaded")
        else:
            metrics.RELOADS.labels("ok").inc()
            log.info("reloaded")


def server_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    """Returns the gRPC channel arguments of a server."""
    age = settings.max_connection_age_seconds
    return [
        # No grace is set, so that streams on an old connection end when they are done.
        *([("grpc.max_connection_age_ms", round(age * 1000))] if age else []),
        ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it silently
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # A photo must fit into the first flight: with the default of 64 KiB it waits for a round trip in the middle.
        ("grpc.http2.lookahead_bytes", _FIRST_FLIGHT_BYTES),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


async def _drain(
    settings: ServiceSettings,
    server: grpc.aio.Server,
    checker: health.aio.HealthServicer,
    lifecycle: Lifecycle,
) -> None:
    log.info("draining")
    await checker.enter_graceful_shutdown()
    lifecycle.say_serving(False)
    await asyncio.sleep(settings.drain_delay_seconds)
    lifecycle.draining.set()
    # `stop` refuses new calls at once, but waits for open health watches too; ours are what counts.
    refusing = asyncio.create_task(server.stop(settings.drain_seconds))
    try:
        async with asyncio.timeout(settings.drain_seconds):
            await lifecycle.in_flight.wait_idle()
    except TimeoutError:
        log.warning("calls cancelled after drain_seconds", drain_seconds=settings.drain_seconds)
    await server.stop(0.1)
    await refusing
