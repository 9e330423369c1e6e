"""What can be wrong with the shared Redis, in one word each, and what to do about it."""

from __future__ import annotations

from redis import exceptions as redis_errors

HINTS = {
    "timeout": "cache_redis_timeout_seconds bounds every exchange",
    "connection": "is it running, reachable, and is TLS (rediss://) what it speaks?",
    "auth": "check user and password of cache_redis_url",
    "refused": "check its access list, its memory policy, and that it is not a replica",
    "protocol": "is it a Redis?",
}


def reason_of(error: Exception) -> str:
    """Returns a key of `HINTS`, for metrics and logs. What the error says is left out: it can quote a password."""
    match error:
        case TimeoutError() | redis_errors.TimeoutError():
            return "timeout"
        case redis_errors.AuthenticationError() | redis_errors.AuthorizationError():
            return "auth"
        case redis_errors.ResponseError():
            return "refused"
        case redis_errors.ConnectionError() | OSError():
            return "connection"
        case _:
            return "protocol"
