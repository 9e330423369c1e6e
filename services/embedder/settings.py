"""Settings of the embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.embedder.limits import PIXEL_CEILING, ImageLimits
from services.runtime.settings import AddressList, ServiceSettings

_MIB = 2**20


class EmbedderSettings(ServiceSettings):
    """What the embedder can be told; `VITRINE_EMBEDDER_...` in the environment, `[embedder]` in the TOML file."""

    section: ClassVar[str] = "embedder"

    port: int = Field(50051, ge=1, le=65535, description="gRPC port.")
    model_dir: Path = Field(
        Path("models/build/efficientnet-lite0"),
        description="Folder of the model: card.json and the files it names (models/README.md).",
    )
    indexers: AddressList = Field(
        [],
        description="Addresses of the index shards, in shard order; the order must never change. Empty: no Ingest.",
    )

    provider: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where the model runs. The service does not start where it would run elsewhere."
    )
    device_id: int = Field(0, ge=0, le=255, description="Which GPU; cuda only.")
    gpu_mem_limit_bytes: int = Field(
        4 * 2**30,
        ge=256 * _MIB,
        le=2**40,
        description="Most GPU memory the runtime's arena may take; cuda only. Too low fails large batches.",
    )
    intra_op_threads: int = Field(0, ge=0, le=1024, description="Threads that share one batch; 0: one for each core.")
    max_batch: int = Field(
        0,
        ge=0,
        le=1024,
        description="Most images in one batch; 0: 4 on the CPU, where larger ones gain nothing, 32 on a GPU. Higher: "
        "a longer wait for whoever comes while a full batch runs.",
    )

    decode_threads: int = Field(0, ge=0, le=1024, description="Pictures decoded side by side; 0: one for each core.")
    max_inflight_pixels: int = Field(
        100_000_000,
        ge=1_000_000,
        le=2**36,
        description="Pixels that all decoding threads together hold; about 3 to 9 bytes each.",
    )

    max_images_per_request: int = Field(32, ge=1, le=4096, description="Most images in one Embed call.")
    max_image_bytes: int = Field(20 * _MIB, ge=1024, le=2**30, description="Largest image file.")
    max_image_pixels: int = Field(50_000_000, ge=1, le=PIXEL_CEILING, description="Most pixels of an image.")
    max_image_side: int = Field(16_384, ge=1, le=65_535, description="Longest side of an image in pixels.")

    interactive_queue_items: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Interactive images held at once, from arrival to vector; more are refused with "
        "RESOURCE_EXHAUSTED and retry advice. Higher: fewer refusals, longer waits.",
    )
    interactive_queue_bytes: int = Field(
        128 * _MIB, ge=_MIB, le=2**40, description="The same in bytes of image files and decoded pictures."
    )
    bulk_queue_items: int = Field(
        64, ge=1, le=100_000, description="Bulk images held at once; streams are slowed beyond, never refused."
    )
    bulk_queue_bytes: int = Field(
        128 * _MIB, ge=_MIB, le=2**40, description="The same in bytes of image files and decoded pictures."
    )
    stream_window_items: int = Field(
        128, ge=1, le=100_000, description="Images of one EmbedStream taken in before their answers are read."
    )
    stream_window_bytes: int = Field(64 * _MIB, ge=_MIB, le=2**40, description="The same in bytes of messages.")

    ingest_window_items: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Items of one Ingest taken in before their acks are read. Lower saves memory, higher hides the "
        "index's commit time.",
    )
    ingest_window_bytes: int = Field(64 * _MIB, ge=_MIB, le=2**40, description="The same in bytes of messages.")
    shard_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="How long a shard may take to describe or create a collection."
    )
    shard_retry_seconds: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="How long an Ingest tries to reach a shard that went away before its items answer UNAVAILABLE.",
    )

    @model_validator(mode="after")
    def _limits_fit_together(self) -> Self:
        if self.max_images_per_request > min(self.interactive_queue_items, self.bulk_queue_items):
            raise ValueError("max_images_per_request must not exceed interactive_queue_items or bulk_queue_items")
        if self.max_image_bytes > self.max_message_bytes:
            raise ValueError("max_image_bytes must not exceed max_message_bytes")
        if self.max_image_pixels > self.max_inflight_pixels:
            raise ValueError("max_image_pixels must not exceed max_inflight_pixels")
        for name in (
            "interactive_queue_bytes",
            "bulk_queue_bytes",
            "stream_window_bytes",
            "ingest_window_bytes",
        ):
            if getattr(self, name) < self.max_message_bytes:
                raise ValueError(f"{name} must not be less than max_message_bytes")
        return self

    @property
    def resolved_max_batch(self) -> int:
        """Most images in one batch."""
        return self.max_batch or (4 if self.provider == "cpu" else 32)

    @property
    def resolved_intra_op_threads(self) -> int:
        """Threads that share one batch."""
        return self.intra_op_threads or _cores()

    @property
    def resolved_decode_threads(self) -> int:
        """Pictures decoded side by side."""
        return self.decode_threads or _cores()

    @property
    def image_limits(self) -> ImageLimits:
        """What a single image must keep to."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.max_image_side)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
