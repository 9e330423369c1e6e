"""What the embedder says of its models."""

from __future__ import annotations

from services.embedder.headers import FORMATS
from services.embedder.model import EmbeddingModel
from services.embedder.settings import EmbedderSettings
from vitrine.v1 import embedder_pb2


def describe(model: EmbeddingModel, settings: EmbedderSettings) -> embedder_pb2.GetModelResponse:
    """Says what a model is, on what it runs, and within which limits."""
    card = model.card
    return embedder_pb2.GetModelResponse(
        name=card.name,
        version=card.version,
        licence=card.licence,
        fingerprint=card.fingerprint,
        dim=model.dim,
        input_height=card.input.height,
        input_width=card.input.width,
        provider=model.provider,
        device=model.device,
        precision=card.precision,
        tag_count=len(model.labels),
        limits=embedder_pb2.EmbedderLimits(
            max_images_per_request=settings.max_images_per_request,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
            max_image_side=settings.max_image_side,
            formats=FORMATS,
            interactive_queue_items=settings.interactive_queue_items,
            interactive_queue_bytes=settings.interactive_queue_bytes,
            bulk_queue_items=settings.bulk_queue_items,
            bulk_queue_bytes=settings.bulk_queue_bytes,
        ),
        batching=embedder_pb2.BatchingInfo(
            batch_sizes=model.batching.sizes,
            lanes=model.layout.lanes,
            threads=model.layout.threads,
            lone_threads=model.lone_threads,
        ),
        finds_subjects=model.finds_subjects,
    )
