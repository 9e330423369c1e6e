"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from services.gateway.ranking import CollectionName, RankingSettings
from services.runtime.peers import PeerSettings
from services.runtime.settings import AddressList, PathList
from vitrine.fanout.policy import ShardPolicy

_REFERENCE = r"^$|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class GatewaySettings(PeerSettings):
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
    breaker_failures: int = Field(
        5,
        ge=1,
        le=1000,
        description="Calls in a row that a shard leaves unanswered before searches go on without it (circuit breaker). "
        "Fewer spare callers the wait sooner, and cut off a shard that only hiccups.",
    )
    breaker_probe_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="How often a shard that is not asked gets a health check, and how long that may take. Shorter "
        "finds out sooner that it is back.",
    )
    shard_retry_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Calls to a shard that may be made a second time, as a share of all calls to it. More helps over "
        "hiccups, and loads a shard in trouble further.",
    )
    ranking_stage_seconds: float = Field(
        0.5,
        gt=0,
        le=60,
        description="Longest that one ranking stage, or the text encoder, may take; then the answer goes on without "
        "it, and says so.",
    )
    features: str = Field(
        "",
        pattern=_REFERENCE,
        description="`module:function` that returns a `vitrine.ranking.candidates.Scorer`: it adds to the scores of "
        "all candidates from knowledge of your own, such as features of another model. Empty: none.",
    )
    taste: str = Field(
        "",
        pattern=_REFERENCE,
        description="The same for personal taste; asked only where a search says whose it is (`user_key`). Empty: "
        "none.",
    )
    text_encoder: str = Field(
        "",
        pattern=_REFERENCE,
        description="`module:function` that returns a `vitrine.search.text_encoding.TextEncoder`, the text half of a "
        "joint text-image model: texts are then vectors too in collections of its embedding space. Costs every search "
        "with text the time that it takes. Empty: texts are words only.",
    )
    data_dir: Path | None = Field(
        None,
        description="Folder for feedback, used by one gateway at a time; unset: none is kept, and RecordFeedback says "
        "so.",
    )
    feedback_days: float = Field(
        90.0,
        gt=0,
        le=3_650,
        description="How long answers shown, and what shoppers did with them, are kept. Longer: more to tune by, more "
        "to answer for.",
    )
    feedback_key_file: Path | None = Field(
        None,
        description="File with the key (32 bytes or more) that user keys are hashed with; several gateways share one. "
        "Unset: feedback.key in data_dir, made at the first start. Without it users cannot be recognised again.",
    )
    feedback_queue: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Answers and events waiting for the disk; answers beyond are not kept (and counted), feedback "
        "beyond is refused with retry advice.",
    )
    calibration_dir: Path | None = Field(
        None,
        description="Folder of calibration files (`vitrine calibrate NAME --out DIR/NAME.calibration.json`), one for "
        "each collection that Recognize is to be sure of. A bad file stops the start; SIGHUP reads the folder again. "
        "Unset: Recognize guesses by a default curve, and says so.",
    )
    ranking: dict[CollectionName, RankingSettings] = Field(
        {},
        description="How candidates are re-ranked, by collection or alias (the name that a request gives comes first).",
    )

    @property
    def shard_policy(self) -> ShardPolicy:
        """How patient searches are with the shards."""
        return ShardPolicy(
            breaker_failures=self.breaker_failures,
            probe_seconds=self.breaker_probe_seconds,
            longest_probe_seconds=16 * self.breaker_probe_seconds,
            retry_share=self.shard_retry_share,
            retry_reserve=100 * self.shard_retry_share,
        )
