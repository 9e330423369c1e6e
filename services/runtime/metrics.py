"""The gRPC server metrics every service exports, under the ecosystem's names."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_METHOD = ("grpc_type", "grpc_service", "grpc_method")

STARTED = Counter("grpc_server_started", "Calls started.", _METHOD)
HANDLED = Counter("grpc_server_handled", "Calls finished, by status code.", (*_METHOD, "grpc_code"))
SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Time from the start of a call to its end.",
    _METHOD,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 30.0),
)
RECEIVED = Counter("grpc_server_msg_received", "Messages received.", _METHOD)
SENT = Counter("grpc_server_msg_sent", "Messages sent.", _METHOD)
IN_FLIGHT = Gauge("vitrine_rpcs_in_flight", "Calls being served now.")
SHED = Counter("vitrine_rpcs_shed", "Calls refused before their work began, by reason.", ("reason",))
SERVING = Gauge("vitrine_serving", "1 while the service reports SERVING to health checks.")
RELOADS = Counter("vitrine_settings_reloads", "Settings read again after SIGHUP, by result.", ("result",))
