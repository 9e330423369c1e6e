"""Changes of attributes: checked one by one, written together, answered one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from google.rpc import status_pb2

from services.indexer import metrics
from services.indexer.records import NOT_STORED, TOO_MANY_ATTRIBUTES, Operation, Update, read_update
from services.indexer.writer import Written
from vitrine.attributes import MAX_ATTRIBUTES
from vitrine.errors import InvalidArgumentError, NotFoundError, VitrineError, to_status
from vitrine.v1 import indexer_pb2

Checked: TypeAlias = Update | VitrineError


class Writer(Protocol):
    """Writes operations, all or none."""

    async def write(self, operations: Sequence[Operation]) -> Written:
        """Returns once they are durable and searchable."""


def read_updates(updates: Sequence[indexer_pb2.AttributeUpdate], spec: indexer_pb2.CollectionSpec) -> list[Checked]:
    """Checks updates; one that is wrong becomes its error."""
    return [_read(update, spec, f"updates[{index}]") for index, update in enumerate(updates)]


async def answer_updates(checked: Sequence[Checked], writer: Writer) -> indexer_pb2.UpdateAttributesResponse:
    """Writes what is right and says what became of each.

    Raises:
        VitrineError: Nothing was stored.
    """
    operations = [each for each in checked if isinstance(each, Update)]
    written = await writer.write(operations) if operations else Written([], 0)
    outcomes = iter(written.outcomes)
    response = indexer_pb2.UpdateAttributesResponse(generation=written.generation)
    for each in checked:
        changed = 0
        if isinstance(each, Update):
            changed = max(outcome := next(outcomes), 0)
            status = _status(each, outcome)
            metrics.UPDATES.labels("failed" if outcome < 0 else "changed" if outcome else "stale").inc()
        else:
            status = to_status(each)
            metrics.UPDATES.labels("refused").inc()
        response.results.append(status)
        response.updated.append(changed)
    return response


def _read(update: indexer_pb2.AttributeUpdate, spec: indexer_pb2.CollectionSpec, field: str) -> Checked:
    try:
        return read_update(update, spec, field)
    except VitrineError as error:
        return error


def _status(update: Update, outcome: int) -> status_pb2.Status:
    if outcome == NOT_STORED:
        image = f", image {update.image_id!r}" if update.image_id else ""
        return to_status(NotFoundError(f"nothing is stored under product {update.product_id!r}{image}"))
    if outcome == TOO_MANY_ATTRIBUTES:
        return to_status(
            InvalidArgumentError(f"a point may have {MAX_ATTRIBUTES} attributes, this would be more", field="set")
        )
    return status_pb2.Status()
