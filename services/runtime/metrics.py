"""What every service exports: gRPC server metrics under the ecosystem's names, and what the process is and may use."""

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
IN_FLIGHT_LIMIT = Gauge("vitrine_rpcs_in_flight_limit", "Calls served at the same time at most.")
SHED = Counter("vitrine_rpcs_shed", "Calls refused before their work began, by reason.", ("reason",))
REFUSALS = Counter(
    "vitrine_auth_refusals",
    "Calls refused because of who made them, by reason: missing, malformed, unknown, expired, scope, collection.",
    ("reason",),
)
CERTIFICATE_EXPIRES = Gauge(
    "vitrine_tls_certificate_expires_timestamp_seconds", "When the certificate in use expires; 0: there is none."
)
SECRET_RELOADS = Counter(
    "vitrine_secret_reloads", "Certificate (tls) or identities (auth) read again, by result.", ("secret", "result")
)
SERVING = Gauge("vitrine_serving", "1 while the service reports SERVING to health checks.")
RELOADS = Counter("vitrine_settings_reloads", "Settings read again after SIGHUP, by result.", ("result",))
SPANS = Counter("vitrine_spans", "Spans of traces given to the collector, by result.", ("result",))

BUILD = Gauge("vitrine_build_info", "1; which service this is, of which version.", ("service", "version", "python"))
CPU_CORES = Gauge("vitrine_cpu_cores", "Processor cores that the process may use.")
MEMORY_LIMIT = Gauge(
    "vitrine_memory_limit_bytes", "Memory that the process may use: its control group's limit, or the machine's."
)
LOOP_LAG = Histogram(
    "vitrine_event_loop_lag_seconds",
    "How late the event loop woke up, measured twice a second.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
