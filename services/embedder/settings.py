"""Settings of the embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from services.embedder.cache.redis_address import RedisAddress
from services.embedder.limits import PIXEL_CEILING, ImageLimits
from services.runtime.peers import PeerSettings
from services.runtime.settings import AddressList, PathList
from vitrine.limits import MAX_TAGS

_MIB = 2**20


class EmbedderSettings(PeerSettings):
    """What the embedder can be told; `VITRINE_EMBEDDER_...` in the environment, `[embedder]` in the TOML file."""

    section: ClassVar[str] = "embedder"

    port: int = Field(50051, ge=1, le=65535, description="gRPC port.")
    model_dirs: PathList = Field(
        [],
        description="Folders of the models that are served side by side, each with card.json and the files it names "
        "(models/README.md); the first is the default model. Empty: models/build/efficientnet-lite0-int8 on the CPU, "
        "models/build/efficientnet-lite0 on a GPU, whose vectors do not mix. In the environment separated by commas. "
        "SIGHUP re-reads the file: models are added and removed while the service runs.",
    )
    indexers: AddressList = Field(
        [],
        description="Addresses of the index shards, in shard order; the order must never change. Empty: no Ingest.",
    )

    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        "cpu",
        description="Where the model runs (docs/gpu.md). The service does not start where it would run elsewhere. "
        "tensorrt: nodes that TensorRT cannot take run on CUDA; the first start with a model takes minutes.",
    )
    device_id: int = Field(0, ge=0, le=255, description="Which GPU; cuda and tensorrt.")
    gpu_mem_limit_bytes: int = Field(
        4 * 2**30,
        ge=256 * _MIB,
        le=2**40,
        description="Most GPU memory the CUDA arenas of a model may take, which its batch sizes share out; cuda and "
        "tensorrt. Too low fails the start.",
    )
    tf32: bool = Field(
        False,
        description="Lets CUDA shorten the mantissas of fp32 convolutions to 10 bits: faster, and vectors differ "
        "slightly from those of other machines.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Records each batch size once and replays it: less time between kernels, which small batches feel "
        "most. cuda only; models on one GPU then take turns, and loading one holds the others up.",
    )
    tensorrt_cache_dir: Path | None = Field(
        None,
        description="Folder for TensorRT's engines, which are built at the first start with a model, GPU and version; "
        "tensorrt needs it. Lost, the next start takes minutes again.",
    )
    tensorrt_workspace_bytes: int = Field(
        2**30,
        ge=64 * _MIB,
        le=2**40,
        description="GPU memory a TensorRT layer may use while it works. Higher admits faster algorithms.",
    )
    tensorrt_fp16: bool = Field(
        False,
        description="Lets TensorRT choose fp16 for layers of the fp32 model: faster, and vectors differ slightly from "
        "those of other machines.",
    )
    lanes: int = Field(
        0,
        ge=0,
        le=1024,
        description="Batches that run side by side on the CPU; 0: measured at start. More: higher throughput, and each "
        "batch takes longer. A GPU has one.",
    )
    intra_op_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that share one batch; 0: measured at start together with lanes, and a lone image gets all "
        "cores where that is faster.",
    )
    max_batch: int = Field(
        0,
        ge=0,
        le=1024,
        description="Most images in one batch; 0: 4 on the CPU, 32 on a GPU. Only what waits while every lane is busy "
        "makes batches: more than one image a lane is a backlog, and larger batches work it off sooner.",
    )
    max_bulk_batch: int = Field(
        0,
        ge=0,
        le=1024,
        description="Most images in a batch of bulk work alone; 0: 1 on the CPU, where larger ones gain a few percent, "
        "max_batch on a GPU. A shopper who comes while one runs waits for it.",
    )
    batch_wait_seconds: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How long a batch that is not full waits for company although the device is free. More than 0 "
        "trades latency for larger batches.",
    )
    canary_seconds: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="A model through which no batch went for this long gets a made-up image; one that takes as long "
        "again, or fails, makes the service report NOT_SERVING until a batch goes through.",
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
        description="Interactive images held at once for each model, from arrival to vector; more are refused with "
        "RESOURCE_EXHAUSTED and retry advice. Higher: fewer refusals, longer waits. A caller that names itself "
        "(x-vitrine-client) leaves room for others.",
    )
    interactive_queue_bytes: int = Field(
        128 * _MIB, ge=_MIB, le=2**40, description="The same in bytes of image files and decoded pictures."
    )
    interactive_queue_seconds: float = Field(
        0.2,
        gt=0,
        le=60,
        description="Longest time interactive images may have to wait for those before them, as far as it can be told; "
        "what would wait longer, or past its deadline, is refused with retry advice. Higher: fewer refusals in bursts, "
        "longer waits under overload.",
    )
    bulk_queue_items: int = Field(
        64, ge=1, le=100_000, description="Bulk images held at once; streams are slowed beyond, never refused."
    )
    bulk_queue_bytes: int = Field(
        128 * _MIB, ge=_MIB, le=2**40, description="The same in bytes of image files and decoded pictures."
    )
    cache_memory_bytes: int = Field(
        64 * _MIB,
        ge=0,
        le=2**40,
        description="Memory for vectors of images seen before, which are then not embedded again; 0: none. A vector "
        "takes its length plus about 1.3 kB.",
    )
    cache_redis_url: SecretStr = Field(
        SecretStr(""),
        description="Redis in which replicas share such vectors, like redis://user:password@host:6379/0, or rediss:// "
        "for TLS; empty: none. Give it a maxmemory and the policy allkeys-lru. While it is away, images are embedded "
        "without it.",
    )
    cache_redis_timeout_seconds: float = Field(
        0.05,
        gt=0,
        le=5,
        description="Longest wait for an answer of Redis. Lower: a slow Redis costs requests less, and is given up "
        "sooner.",
    )
    cache_redis_lock_seconds: float = Field(
        0.25,
        ge=0.01,
        le=60,
        description="How long others wait for a replica that embeds the same image before they do it too. Higher: "
        "fewer images embedded twice under load, and a replica that dies holds others up for longer.",
    )
    cache_ttl_seconds: float = Field(
        86_400.0,
        ge=1,
        le=366 * 86_400,
        description="How long a vector is kept, in memory and in Redis. Vectors say little of a picture, yet not "
        "nothing.",
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
    ingest_tags: int = Field(
        3,
        ge=0,
        le=MAX_TAGS,
        description="Class tags, at most, that are stored with a catalogue image as its attribute `tags`, unless it "
        "brings one, so that text finds what its title does not say; models with a classifier only. 0: none.",
    )
    ingest_tag_floor: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Probability that such a tag must have. Lower: more products are found by their tags, more of "
        "them wrongly.",
    )
    shard_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="How long a shard may take to describe or create a collection."
    )
    shard_retry_seconds: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="How long an Ingest tries to reach a shard that went away before its items answer UNAVAILABLE.",
    )

    @field_validator("cache_redis_url")
    @classmethod
    def _redis_can_be_addressed(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            RedisAddress(url)
        return url

    @model_validator(mode="after")
    def _gpu_settings_fit_together(self) -> Self:
        if self.cuda_graphs and self.provider != "cuda":
            raise ValueError(f"cuda_graphs needs provider cuda, it is {self.provider}")
        if self.provider == "tensorrt" and self.tensorrt_cache_dir is None:
            raise ValueError("tensorrt_cache_dir must be set for provider tensorrt")
        return self

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
    def resolved_model_dirs(self) -> list[Path]:
        """Folders of the models that are served."""
        name = "efficientnet-lite0-int8" if self.provider == "cpu" else "efficientnet-lite0"
        return self.model_dirs or [Path("models/build") / name]

    @property
    def resolved_max_batch(self) -> int:
        """Most images in one batch."""
        return self.max_batch or (4 if self.provider == "cpu" else 32)

    @property
    def resolved_bulk_batch(self) -> int:
        """Most images in a batch of bulk work alone."""
        return min(self.max_bulk_batch or (1 if self.provider == "cpu" else 1024), self.resolved_max_batch)

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
