"""Puts one search to every shard: by vector and by words."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import grpc

from vitrine.errors import NotFoundError, UnimplementedError, VitrineError
from vitrine.fanout.result import FanOut, answers_needed
from vitrine.search.checking import Options
from vitrine.search.reading import no_collection
from vitrine.search.timing import Timer
from vitrine.shards import Answer, ShardSet, Stub
from vitrine.v1 import common_pb2, indexer_pb2

Nearest: TypeAlias = FanOut[indexer_pb2.IndexerSearchResponse]
Worded: TypeAlias = FanOut[indexer_pb2.SearchTextResponse]

Request = TypeVar("Request", indexer_pb2.IndexerSearchRequest, indexer_pb2.SearchTextRequest)


async def ask_nearest(
    shards: ShardSet, options: Options, vector: common_pb2.Vector, want: int, timer: Timer
) -> Nearest:
    """Asks every shard for its `want` nearest products.

    Raises:
        NotFoundError: No such collection.
        PreconditionError, InvalidArgumentError: The vector does not fit the collection, or the filter is bad.
        UnavailableError, DeadlineError: Fewer shards answered than the options allow.
    """
    query = indexer_pb2.VectorQuery(
        vector=vector,
        k=want,
        filter=options.condition,
        exclude_product_ids=options.excluded,
        min_score=options.min_score,
    )
    question = indexer_pb2.IndexerSearchRequest(
        collection=options.collection, queries=[query], ef=options.ef, exact=options.exact, with_attributes=True
    )
    needed = _needed(shards, options)
    with timer.stage("index"):
        found = await shards.fan_out(
            lambda stub, seconds: stub.Search(_for_shard(question, shards, stub, options), timeout=seconds),
            timer.budget(),
            needed=needed,
        )
        require_coverage(found, needed, options)
    return found


def refuses_vector(error: VitrineError) -> bool:
    """Returns whether it is the vector, and nothing else of the question, that shards refuse."""
    return any(violation.field.startswith("queries[0].vector") for violation in error.violations)


async def ask_words(shards: ShardSet, options: Options, text: str, want: int, timer: Timer) -> Worded:
    """Asks every shard for the `want` products whose words match best. Overlaps with the search by vector.

    What could not be asked is in the result; a shard without full-text index has failed there, with an
    UnimplementedError.

    Raises:
        InvalidArgumentError: There is no word in the text, or the filter is bad.
    """
    question = indexer_pb2.SearchTextRequest(
        collection=options.collection,
        text=text,
        k=want,
        filter=options.condition,
        exclude_product_ids=options.excluded,
        with_attributes=True,
    )
    without: dict[int, VitrineError] = {}

    async def ask(stub: Stub, seconds: float) -> indexer_pb2.SearchTextResponse | None:
        try:
            return await stub.SearchText(_for_shard(question, shards, stub, options), timeout=seconds)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            without[shards.stubs.index(stub)] = UnimplementedError("it has no full-text index")
            return None  # no refusal of the request, and nothing to hold against the shard

    with timer.stage("text"):
        found = await shards.fan_out(ask, timer.budget())
    return FanOut(
        addresses=found.addresses,
        answers={index: answer for index, answer in found.answers.items() if answer is not None},
        failed=found.failed | without,
        timed_out=found.timed_out,
        skipped=found.skipped,
        abandoned=found.abandoned,
        retried=found.retried,
    )


def require_words(found: Worded, shards: ShardSet, options: Options) -> None:
    """Checks the answers to a search by words alone.

    Raises:
        NotFoundError: No such collection.
        UnimplementedError: No shard has a full-text index.
        UnavailableError, DeadlineError: Fewer shards answered than the options allow.
    """
    if all(isinstance(found.failed.get(index), UnimplementedError) for index in range(len(shards))):
        raise UnimplementedError("query.text: no shard of this index has a full-text index; send an image")
    require_coverage(found, _needed(shards, options), options)


def require_coverage(found: FanOut[Answer], needed: int, options: Options) -> None:
    """Checks how many shards answered.

    Raises:
        NotFoundError: No such collection.
        UnavailableError, DeadlineError: None answered, or fewer than `needed`.
    """
    try:
        found.raise_if_unanswered()
    except NotFoundError:
        raise no_collection(options.collection) from None
    found.raise_if_short(needed)


def _needed(shards: ShardSet, options: Options) -> int:
    return answers_needed(len(shards), options.min_coverage, options.allow_partial)


def _for_shard(question: Request, shards: ShardSet, stub: Stub, options: Options) -> Request:
    """Returns the question as one shard gets it: with the generation that it must have reached."""
    for index, generation in options.min_generations:
        if shards.stubs[index] is stub:
            own = type(question)()
            own.CopyFrom(question)
            own.min_generation = generation
            return own
    return question
