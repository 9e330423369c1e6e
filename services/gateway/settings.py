"""Settings of the gateway."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from services.runtime.settings import AddressList, ServiceSettings


class GatewaySettings(ServiceSettings):
    """What the gateway can be told; `VITRINE_GATEWAY_...` in the environment, `[gateway]` in the TOML file."""

    section: ClassVar[str] = "gateway"

    port: int = Field(50050, ge=1, le=65535, description="gRPC port.")
    default_deadline_seconds: float = Field(
        5.0, gt=0, le=3600, description="Deadline of calls that arrive without one (and the longest granted)."
    )
    embedder: str = Field("127.0.0.1:50051", min_length=1, description="Address of the embedder.")
    indexers: AddressList = Field(
        ["127.0.0.1:50060", "127.0.0.1:50061"],
        min_length=1,
        description="Addresses of the index shards, in shard order; the order must never change.",
    )
    status_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="How long GetStatus waits for each component before reporting it as down."
    )
