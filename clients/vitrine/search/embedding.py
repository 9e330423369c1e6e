"""Asks the embedder for the vectors of query images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrine.channels import EMBEDDING, open_channel
from vitrine.credentials import Credentials
from vitrine.errors import UnavailableError, from_status
from vitrine.naming import named
from vitrine.search.timing import Timer
from vitrine.shards import call_within
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc


@dataclass(frozen=True, slots=True)
class Photo:
    """One image to embed; `field` is its name in the request, empty where there is no other."""

    data: bytes
    box: common_pb2.Box | None = None
    auto_crop: bool = False
    field: str = ""

    def to_proto(self) -> embedder_pb2.ImageInput:
        """Returns it as the embedder takes it."""
        subject = embedder_pb2.SUBJECT_MODE_CROP if self.auto_crop else embedder_pb2.SUBJECT_MODE_UNSPECIFIED
        return embedder_pb2.ImageInput(data=self.data, box=self.box, subject=subject)


class QueryEmbedder:
    """The embedder, as a search uses it."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        """Opens a channel (lazily connected) to `host:port`."""
        self.address = address
        self._channel = open_channel(address, credentials, multiplexed=EMBEDDING)
        self.stub: embedder_pb2_grpc.EmbedderAsyncStub = embedder_pb2_grpc.EmbedderStub(self._channel)

    async def embed(
        self, photos: Sequence[Photo], timer: Timer, *, top_tags: int = 0
    ) -> Sequence[embedder_pb2.EmbedResult]:
        """Embeds photos in one call; returns what the embedder says of each, in order. Records the stages.

        Raises:
            InvalidArgumentError, TooLargeError: A photo cannot be embedded; its field is named.
            UnavailableError, DeadlineError: The embedder is away or slow.
        """
        question = embedder_pb2.EmbedRequest(images=[photo.to_proto() for photo in photos], top_tags=top_tags)
        left = timer.remaining()
        with timer.stage("embed"):
            try:
                answer = await call_within(self.stub.Embed(question, timeout=left), left)
            except UnavailableError as error:
                raise named(error, "the embedder", self.address) from None
        for timing in answer.timings:
            timer.stages[timing.stage] = timing.seconds
        for photo, result in zip(photos, answer.results, strict=True):
            if refusal := from_status(result.status):
                if not photo.field:
                    raise refusal
                raise type(refusal)(
                    f"{photo.field}: {refusal.message}",
                    violations=refusal.violations,
                    retry_after=refusal.retry_after,
                )
        return answer.results

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
