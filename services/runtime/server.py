"""Starts a service, keeps it healthy, and stops it without dropping what is in flight."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime import garbage, metrics
from services.runtime.guard import Guard
from services.runtime.interceptor import InFlight, ServiceInterceptor
from services.runtime.listening import check_listening
from services.runtime.logs import configure_logs
from services.runtime.metrics_http import MetricsServer
from services.runtime.multiplex.service import MULTIPLEX_SERVICE, register_multiplex
from services.runtime.resources import export_process, watch_loop
from services.runtime.secrets import Secrets
from services.runtime.settings import ServiceSettings, Settings, SettingsError, load_settings
from services.runtime.tls import ServerTls
from services.runtime.tracing import start_tracing
from vitrine.errors import VitrineError
from vitrine.loopback import is_loopback_host

log = structlog.get_logger()

_FIRST_FLIGHT_BYTES = 2**20
_DEFAULT_IN_FLIGHT = 256
_HANDSHAKE_MS = 20_000

Reloaded = TypeVar("Reloaded", bound=ServiceSettings, contravariant=True)


class StartError(Exception):
    """The service cannot start with what it was given; the message says why, without a traceback."""


@dataclass
class Lifecycle:
    """What a running service shares with its runtime."""

    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is going to stop: long-lived streams finish what they hold and end."""
    guard: Guard = field(default_factory=Guard)
    """Knows who may call; for the ports that a service opens itself."""
    tls: ServerTls | None = None
    """The service's certificate; None: plain text."""
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
    except (SettingsError, StartError, VitrineError) as error:
        print(f"vitrine {kind.section}: {error}", file=sys.stderr)
        sys.exit(2)


async def serve(settings: ServiceSettings, application: Application) -> None:
    """Serves an application until the process is told to stop.

    Raises:
        SettingsError: A file that the settings name is wrong, or strangers could connect.
        StartError: A port is taken, or the application cannot start.
    """
    check_listening(settings)
    secrets = Secrets(settings)
    lifecycle = Lifecycle(in_flight=InFlight(settings.max_concurrent_rpcs), guard=secrets.guard, tls=secrets.tls)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    hang_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.set)

    interceptor = ServiceInterceptor(lifecycle.in_flight, settings.default_deadline_seconds, secrets.guard)
    server = new_server(settings, interceptor)
    if settings.multiplex:
        register_multiplex(server, interceptor, lifecycle.in_flight, lifecycle.draining, settings)
    export_process(settings.section)
    end_tracing = start_tracing(settings)

    checker = health.aio.HealthServicer()
    # It begins with SERVING, and health_port answers while the service still loads.
    await checker.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    names = (*application.grpc_services, *([MULTIPLEX_SERVICE] if settings.multiplex else []), health.SERVICE_NAME)
    if settings.reflection:
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    address = listen(server, settings.host, settings.port, secrets.tls)
    probes = await _serve_probes(settings, checker)
    metrics_server = _serve_metrics(settings, secrets)

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
        attendants.append(asyncio.create_task(_reload_on(hang_up, application, settings, secrets)))
        attendants.append(asyncio.create_task(watch_loop()))
        attendants.append(asyncio.create_task(secrets.watch()))
        log.info("serving", address=address, start_seconds=round(time.perf_counter() - began, 3))
        await stop.wait()
        await _drain(settings, server, checker, lifecycle)
    finally:
        for attendant in attendants:
            attendant.cancel()
        await server.stop(0)
        await application.stop()
        if probes is not None:
            await probes.stop(0)
        metrics_server.close()
        await asyncio.to_thread(end_tracing)
    log.info("stopped")


def new_server(settings: ServiceSettings, interceptor: ServiceInterceptor | None = None) -> grpc.aio.Server:
    """Returns a gRPC server that has not been started, without methods or ports."""
    interceptors = () if interceptor is None else (interceptor,)
    server = grpc.aio.server(interceptors=interceptors, options=server_options(settings))
    # Generated code registers every method twice: by its service, which is enough, and one by one. For the latter
    # grpc.aio (1.85) keeps a task for each method and waits on all of them anew for every call.
    vars(server)["add_registered_method_handlers"] = _leave_out if interceptor is None else interceptor.learn
    return server


def _leave_out(service: str, handlers: Mapping[str, object]) -> None:
    """Takes methods that are known already."""


def listen(server: grpc.aio.Server, host: str, port: int, tls: ServerTls | None) -> str:
    """Opens a port of a gRPC server; returns its address.

    Raises:
        StartError: It is taken.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, tls.grpc_credentials())
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}: {error}") from None
    return address


async def _serve_probes(settings: ServiceSettings, checker: health.aio.HealthServicer) -> grpc.aio.Server | None:
    """Answers health checks, and nothing else, on a port in plain text."""
    if settings.health_port is None:
        return None
    server = new_server(settings)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    listen(server, settings.host, settings.health_port, None)
    await server.start()
    return server


def _serve_metrics(settings: ServiceSettings, secrets: Secrets) -> MetricsServer:
    host, port = settings.metrics_host, settings.resolved_metrics_port
    open_to_all = is_loopback_host(host) or settings.insecure_metrics
    guard = Guard() if open_to_all else secrets.guard
    context = None if open_to_all or secrets.tls is None else secrets.tls.http_context()
    try:
        return MetricsServer(host, port, guard, context)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error}") from None


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


async def _reload_on(
    hang_up: asyncio.Event, application: Application, settings: ServiceSettings, secrets: Secrets
) -> None:
    """Reads certificate, identities and settings again at every SIGHUP; what is wrong changes nothing and is logged."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        await secrets.reload()
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
        # Pings more often than that, and the connection is closed.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 2),
        # One bound, instead of a lower one from which refusals begin by chance.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_idle_ms", round(1_000 * settings.max_connection_idle_seconds)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
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
