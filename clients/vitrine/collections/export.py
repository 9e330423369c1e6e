"""Writes a collection to a file, a JSON object a line: shard by shard, in key order; resumable."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

from vitrine.attributes import from_proto
from vitrine.collections.described import describe
from vitrine.collections.observing import Observer
from vitrine.collections.progress import ProgressFile
from vitrine.collections.scanning import ahead, key_of, scan
from vitrine.errors import PreconditionError
from vitrine.filters import parse
from vitrine.ingest.retry import Backoff
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2

_DTYPE_NAMES = {common_pb2.VECTOR_DTYPE_FLOAT32: "float32", common_pb2.VECTOR_DTYPE_FLOAT16: "float16"}


async def export(
    shards: ShardSet,
    collection: str,
    path: Path,
    *,
    observer: Observer,
    with_vectors: bool = False,
    filter_text: str = "",
    backoff: Backoff | None = None,
) -> int:
    """Writes every point to `path`; returns how many there are in it.

    Until it is complete the file is `path` + `.part`, with `.part.progress` beside it, from which the same call
    continues. What is written to the collection meanwhile may or may not be in the file; no key is in it twice.

    Args:
        shards: All shards of the index, in shard order.
        collection: Its name or an alias, resolved once.
        path: Where to; must not exist.
        observer: Hears of the progress.
        with_vectors: Also the vectors.
        filter_text: Only points for which this filter holds; empty: all.
        backoff: How long to try a shard that is away.

    Raises:
        InvalidArgumentError: The filter cannot be understood.
        NotFoundError, PreconditionError: As `describe`; or `path` exists.
        ProgressFileError: What is half done is another export.
        VitrineError: A shard refuses, or stayed away too long.
        OSError: A file cannot be written.
    """
    condition = parse(filter_text) if filter_text else None
    _check_free(path)
    found = await describe(shards, collection)
    job = {
        "export": found.name,
        "from": ",".join(shards.addresses),
        "fingerprint": found.spec.vector.fingerprint,
        "vectors": with_vectors,
        "filter": filter_text,
    }
    part = path.with_name(path.name + ".part")
    progress = ProgressFile(part.with_name(part.name + ".progress"), job)
    state = progress.load() or {}
    observer.stage(f"export {found.name}", found.points)
    with _open(part, state) as sink:
        try:
            while state["shard"] < len(shards):
                after = tuple(state["after"]) if state["after"] else None
                pages = scan(
                    shards,
                    state["shard"],
                    found.name,
                    after=after,
                    condition=condition,
                    with_vectors=with_vectors,
                    backoff=backoff or Backoff(),
                    waiting=observer.waiting,
                )
                async with aclosing(ahead(pages)) as read_ahead:
                    async for page in read_ahead:
                        size = _write(sink, page)
                        state["after"] = key_of(page[-1])
                        state["points"] += len(page)
                        state["bytes"] += size
                        progress.note(state)
                        observer.at(state["points"])
                state["shard"], state["after"] = state["shard"] + 1, None
            os.fsync(sink.fileno())
        finally:
            progress.note(state)
            progress.flush()
    part.rename(path)
    progress.remove()
    points: int = state["points"]
    return points


def line(point: indexer_pb2.Point) -> str:
    """Returns a point as one JSON object, without a line end.

    `product_id`, `image_id`, `version`, `attributes` (an int64 has no decimal point, a double has one), `content_hash`
    (hex), `image_uri`; where the point has a vector also `vector` (base64 of `dim` little-endian elements of `dtype`)
    and its `fingerprint`.
    """
    content: dict[str, object] = {
        "product_id": point.key.product_id,
        "image_id": point.key.image_id,
        "version": point.version,
        "attributes": {name: from_proto(point.attributes[name], name) for name in sorted(point.attributes)},
        "content_hash": point.content_hash.hex(),
        "image_uri": point.image_uri,
    }
    if point.HasField("vector"):
        content |= {
            "vector": base64.b64encode(point.vector.data).decode(),
            "dtype": _DTYPE_NAMES[point.vector.dtype],
            "dim": point.vector.dim,
            "fingerprint": point.vector.fingerprint,
        }
    return json.dumps(content, ensure_ascii=False)


def _check_free(path: Path) -> None:
    if path.exists():
        raise PreconditionError(f"{path} exists: remove it, or choose another file")


def _open(part: Path, state: dict[str, Any]) -> BinaryIO:
    """Opens the unfinished file at its end; the state becomes that of an empty one where the file does not fit it."""
    start = {"shard": 0, "after": None, "points": 0, "bytes": 0}
    if not state or not part.exists() or part.stat().st_size < state["bytes"]:
        state.update(start)
        return part.open("wb")
    sink = part.open("r+b")
    # Lines after the last progress that was saved, the last perhaps torn: they come again.
    sink.truncate(state["bytes"])
    sink.seek(state["bytes"])
    return sink


def _write(sink: BinaryIO, page: Iterable[indexer_pb2.Point]) -> int:
    lines = "".join(f"{line(point)}\n" for point in page).encode()
    sink.write(lines)
    sink.flush()
    return len(lines)
