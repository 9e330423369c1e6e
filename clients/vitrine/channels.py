"""How Vitrine's processes open gRPC channels: one set of options everywhere."""

from __future__ import annotations

import json

import grpc

MAX_MESSAGE_BYTES = 32 * 2**20

# Only UNAVAILABLE is retried, and only by gRPC itself: it says that the call had no effect.
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    }
)


def open_channel(address: str, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> grpc.aio.Channel:
    """Opens a channel to `host:port`; it connects when first used and reconnects by itself."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            # The server's limit is the one that counts, and its refusal names it.
            ("grpc.max_send_message_length", -1),
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),  # in effect the connect timeout
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ],
    )
