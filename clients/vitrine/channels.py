"""How Vitrine's processes open gRPC channels: one set of options everywhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

import grpc

from vitrine.bearer import BearerChannel
from vitrine.credentials import Credentials
from vitrine.errors import InvalidArgumentError
from vitrine.loopback import is_loopback
from vitrine.multiplex.channel import MultiplexChannel
from vitrine.passing import PassingChannel

MAX_MESSAGE_BYTES = 32 * 2**20

# Who makes a call again that found nobody: gRPC itself, except where `vitrine.fanout` does. Never both, or an outage
# costs every call the waits of both.
_RETRIED_BY_FAN_OUT = ("Search", "SearchText", "Get")

# They change nothing, so that they may be made twice whatever became of the first.
_READING = {
    "vitrine.v1.VisualSearch": ("Search", "Recognize", "Recommend", "Get", "GetStatus"),
    "vitrine.v1.Embedder": ("Embed", "GetModel", "ListModels"),
}


def _paths(service: str, methods: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"/{service}/{method}" for method in methods)


FANNED_OUT = _paths("vitrine.v1.Indexer", _RETRIED_BY_FAN_OUT)
"""What a search asks of every shard, as paths of RPCs."""
SEARCHING = _paths("vitrine.v1.VisualSearch", _READING["vitrine.v1.VisualSearch"])
"""What shoppers ask of a gateway."""
EMBEDDING = _paths("vitrine.v1.Embedder", _READING["vitrine.v1.Embedder"])
"""What a gateway asks of an embedder."""


def _retried(*codes: str) -> dict[str, object]:
    return {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": codes,
    }


_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            # Only UNAVAILABLE: it says that the call had no effect.
            {"name": [{}], "retryPolicy": _retried("UNAVAILABLE")},
            {
                # A server that stops also cancels what arrived in its last instant: gRPC has read it, but started none.
                "name": [
                    {"service": service, "method": method}
                    for service, methods in _READING.items()
                    for method in methods
                ],
                "retryPolicy": _retried("UNAVAILABLE", "CANCELLED"),
            },
            {"name": [{"service": "vitrine.v1.Indexer", "method": method} for method in _RETRIED_BY_FAN_OUT]},
        ],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    }
)


def open_channel(
    address: str,
    credentials: Credentials | None = None,
    *,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    multiplexed: Collection[str] = (),
) -> grpc.aio.Channel:
    """Opens a channel to `host:port`; it connects when first used and reconnects by itself.

    It spreads calls over all addresses that the name stands for, and looks them up again whenever a connection ends.
    Those of the methods in `multiplexed` (`FANNED_OUT`, `SEARCHING` or `EMBEDDING`) go on streams, many together: for
    servers that are asked often.

    Raises:
        InvalidArgumentError: A file of the credentials cannot be read, or a token would go over plain text to another
            machine.
    """
    credentials = credentials or Credentials()
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        # The server's limit is the one that counts, and its refusal names it.
        ("grpc.max_send_message_length", -1),
        ("grpc.service_config", _SERVICE_CONFIG),
        # A peer that vanished without a word is noticed between calls, not by the next one.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),  # in effect the connect timeout
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A pod that moved has a new address; gRPC's own 30 s would keep calling the old one.
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ]
    bearer = credentials.bearer()
    if credentials.tls is not None:
        if credentials.tls.server_name:
            options.append(("grpc.ssl_target_name_override", credentials.tls.server_name))
        channel = grpc.aio.secure_channel(address, credentials.tls.channel_credentials(), options=options)
    elif bearer is None or is_loopback(address):
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        raise InvalidArgumentError(
            f"a token is never sent to {address} over plain text: set TLS (a CA file at least), or leave the token out",
            field="tls",
        )
    if multiplexed:
        channel = MultiplexChannel(channel, multiplexed, retried=frozenset(multiplexed) - frozenset(FANNED_OUT))
    return PassingChannel(channel if bearer is None else BearerChannel(channel, bearer))
