"""What the model's classifier sees in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.embedder.cache.vector import TopClasses
from vitrine.attributes import MAX_ATTRIBUTES, TAGS
from vitrine.v1 import common_pb2


def top_tags(classes: TopClasses, labels: Sequence[str], count: int) -> list[common_pb2.Tag]:
    """Returns up to `count` classes by probability, most probable first."""
    return [
        common_pb2.Tag(label=labels[index], probability=probability)
        for index, probability in zip(classes.indices[:count], classes.probabilities[:count], strict=True)
    ]


def with_tags(
    attributes: Mapping[str, common_pb2.AttributeValue],
    classes: TopClasses | None,
    labels: Sequence[str],
    *,
    most: int,
    floor: float,
) -> Mapping[str, common_pb2.AttributeValue]:
    """Returns the attributes of a catalogue image with its tags, at most `most` and none less probable than `floor`.

    They stay as they are where they hold tags already, or as many attributes as there may be, or there is no tag.
    """
    if classes is None or TAGS in attributes or len(attributes) >= MAX_ATTRIBUTES:
        return attributes
    found = [tag.label for tag in top_tags(classes, labels, most) if tag.probability >= floor]
    if not found:
        return attributes
    return {**attributes, TAGS: common_pb2.AttributeValue(string_list_value=common_pb2.StringList(values=found))}
