"""Settings of the gateway."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from services.runtime.settings import AddressList, PathList, ServiceSettings


class GatewaySettings(ServiceSettings):
    """What the gateway can be told; `VITRINE_GATEWAY_...` in the environment, `[gateway]` in the TOML file."""

    section: ClassVar[str] = "gateway"

    port: int = Field(50050, ge=1, le=65535, description="gRPC port.")
    http_port: int = Field(
        8080, ge=0, le=65535, description="Port of the HTTP/JSON API and of the web page; 0: neither is served."
    )
    image_roots: PathList = Field(
        [],
        description="Folders that product pictures are served from, at /v1/images; what image URIs name elsewhere is "
        "not served. Empty: no pictures.",
    )
    image_max_bytes: int = Field(
        20 * 2**20, ge=2**10, le=2**30, description="Largest picture file served; it is read into memory."
    )
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
