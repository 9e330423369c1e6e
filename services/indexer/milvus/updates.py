"""Attribute updates: as everywhere, but that a row of Milvus has a size."""

from __future__ import annotations

from collections.abc import Sequence

from services.indexer.milvus.decisions import TOO_LARGE
from services.indexer.milvus.rows import MAX_PAYLOAD_BYTES
from services.indexer.records import Operation, Update
from services.indexer.updates import Checked, Writer, answer_updates
from services.indexer.writer import Written
from vitrine.errors import InvalidArgumentError, to_status
from vitrine.v1 import indexer_pb2


async def answer_small_updates(checked: Sequence[Checked], writer: Writer) -> indexer_pb2.UpdateAttributesResponse:
    """Writes what is right and says what became of each, as `answer_updates` does.

    Raises:
        VitrineError: As the writer's.
    """
    remembering = _Remembering(writer)
    response = await answer_updates(checked, remembering)
    outcomes = iter(remembering.outcomes)
    for each, status in zip(checked, response.results, strict=True):
        if isinstance(each, Update) and next(outcomes) == TOO_LARGE:
            message = f"a point in Milvus may have {MAX_PAYLOAD_BYTES} bytes of attributes, this would be more"
            status.CopyFrom(to_status(InvalidArgumentError(message, field="set")))
    return response


class _Remembering:
    """Passes operations on, and keeps what became of them."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.outcomes: list[int] = []

    async def write(self, operations: Sequence[Operation]) -> Written:
        written = await self._writer.write(operations)
        self.outcomes = written.outcomes
        return written
