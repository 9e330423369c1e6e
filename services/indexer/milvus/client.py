"""Milvus as the engine sees it: a few calls, each with a time limit, and errors of ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import grpc

from services.indexer.settings import IndexerSettings
from services.runtime.server import StartError
from vitrine.errors import (
    DeadlineError,
    InternalError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
    VitrineError,
)
from vitrine.vectors import FloatArray

Fields: TypeAlias = dict[str, Any]
"""A row, or the part of it that was asked for."""

LATEST = 0
"""As `at`: see every write that Milvus has taken before the read. It waits for the next tick of Milvus' clock."""

MAX_LIMIT = 16_384
"""Milvus' own limit on the rows of one search or one page."""

# Milvus takes 64 MiB a message; what travels beside the rows needs some room.
_MAX_WRITE_BYTES = 16 * 2**20

_UNAVAILABLE = 2
_COLLECTION_NOT_FOUND = 100
_RATE_LIMIT = 8
_FORCE_DENY = 9

# Of pymilvus' own limits, which a quota answers with.
_RETRY_AFTER_SECONDS = 1.0

# Loading and dropping take seconds; nobody waits for them with a deadline.
_SETUP_SECONDS = 120.0


class Milvus:
    """One database of a Milvus server. Safe to share between threads."""

    def __init__(self, settings: IndexerSettings) -> None:
        """Connects, and creates the database where it is missing.

        Raises:
            StartError: pymilvus is not installed, or Milvus cannot be reached or refuses.
        """
        self._pymilvus = _pymilvus()
        self._uri = settings.milvus_uri
        self._timeout = settings.milvus_timeout_seconds
        self.database = settings.resolved_milvus_database
        token = _read_token(settings)
        try:
            self._client = self._connect(settings, token, "")
            databases = self._client.list_databases()
            if self.database not in databases:
                self._client.create_database(self.database)
            self._client.close()
            self._client = self._connect(settings, token, self.database)
            self.version: str = self._client.get_server_version()
        except (self._pymilvus.MilvusException, grpc.RpcError, ValueError) as error:
            raise StartError(
                f"milvus_uri {self._uri}, milvus_database {self.database!r}: {_reason(error)}; is Milvus running, and "
                "may this token use the database?"
            ) from None

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    # Collections

    def collections(self) -> dict[str, Fields]:
        """Returns the description, as Milvus gives it, of every collection of the database."""
        return {name: self.describe(name) for name in self._call("list_collections")}

    def exists(self, name: str) -> bool:
        """Tells whether there is a collection of this name."""
        return bool(self._call("has_collection", name))

    def describe(self, name: str) -> Fields:
        """Returns the description of a collection.

        Raises:
            NotFoundError: There is none.
        """
        described: Fields = self._call("describe_collection", name)
        return described

    def create(
        self, name: str, description: str, fields: Sequence[Fields], *, index: Mapping[str, Any], shards: int
    ) -> None:
        """Creates an empty collection, not yet loaded; `fields` are the arguments of pymilvus' `add_field`."""
        schema = self._pymilvus.MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=description
        )
        for field in fields:
            each = dict(field)
            schema.add_field(each.pop("name"), getattr(self._pymilvus.DataType, each.pop("kind")), **each)
        self._call("create_collection", name, schema=schema, num_shards=shards, consistency_level="Session")
        self.prepare(name, index)

    def prepare(self, name: str, index: Mapping[str, Any]) -> None:
        """Makes a collection ready to be read: its index declared, its rows loaded. Does nothing where it is."""
        parameters = self._pymilvus.MilvusClient.prepare_index_params()
        parameters.add_index(**index)
        self._call("create_index", name, parameters, timeout=_SETUP_SECONDS)
        self._call("load_collection", name, timeout=_SETUP_SECONDS)

    def drop(self, name: str) -> None:
        """Drops a collection; does nothing where there is none."""
        self._call("drop_collection", name, timeout=_SETUP_SECONDS)

    def set_alias(self, alias: str, collection: str | None, *, exists: bool) -> None:
        """Points an alias at a collection, or drops it (None)."""
        if collection is None:
            self._call("drop_alias", alias)
        else:
            self._call("alter_alias" if exists else "create_alias", collection, alias)

    def flush(self, name: str) -> None:
        """Returns once everything written so far is in Milvus' object store."""
        self._call("flush", name, timeout=_SETUP_SECONDS)

    def sealed_segments(self, name: str) -> list[int]:
        """Returns the rows of each sealed segment, deleted ones included."""
        return [each.num_rows for each in self._call("list_persistent_segments", name) if each.state.name == "Flushed"]

    def compact(self, name: str) -> int:
        """Asks for a compaction; returns its number."""
        return int(self._call("compact", name))

    def compacted(self, job: int) -> bool:
        """Tells whether a compaction is done."""
        return str(self._call("get_compaction_state", job)) == "Completed"

    # Rows

    def upsert(self, name: str, rows: Sequence[Fields], *, row_bytes: int, timeout: float) -> None:
        """Writes rows, in several requests where they are many; `row_bytes` is the size of the largest."""
        step = max(1, _MAX_WRITE_BYTES // row_bytes)
        for start in range(0, len(rows), step):
            self._call("upsert", name, list(rows[start : start + step]), timeout=timeout)

    def delete(self, name: str, expression: str, *, timeout: float) -> None:
        """Deletes the rows that satisfy an expression."""
        self._call("delete", name, filter=expression, timeout=timeout)

    def last_write(self, name: str) -> int:
        """Returns Milvus' time of the last upsert to a collection through this client.

        pymilvus keeps it for its session consistency, and shows it to nobody; without it every search during a commit
        would wait for that commit.

        Raises:
            InternalError: pymilvus has changed.
        """
        from pymilvus.client.ts_utils import get_collection_ts

        at = get_collection_ts(name, self._client._get_connection().server_address, self.database)
        if not at:
            raise InternalError(
                "pymilvus does not tell the time of a write; use the version in requirements/milvus.txt"
            )
        return int(at)

    def query(
        self, name: str, expression: str, fields: Sequence[str], *, at: int, timeout: float, limit: int | None = None
    ) -> list[Fields]:
        """Returns the rows that satisfy an expression, in no order; at least as new as `at`."""
        return list(
            self._call(
                "query",
                name,
                filter=expression,
                output_fields=list(fields),
                timeout=timeout,
                **({} if limit is None else {"limit": limit}),
                **_as_of(at),
            )
        )

    def count(self, name: str, expression: str, *, at: int, timeout: float) -> int:
        """Counts the rows that satisfy an expression (empty: all)."""
        return int(self.query(name, expression, ["count(*)"], at=at, timeout=timeout)[0]["count(*)"])

    def pages(
        self,
        name: str,
        key: str,
        after: str,
        expression: str,
        fields: Sequence[str],
        *,
        size: int,
        at: int,
        seconds_left: Callable[[], float],
    ) -> Iterator[list[Fields]]:
        """Yields all rows that satisfy an expression, by ascending primary key above `after`, in pages.

        `key` is the primary key, which must be among the fields; `size` the rows of a page at most.
        """
        while True:
            # What pymilvus' own iterator sends; that one waits for a time of the client's clock, here up to 2 s. Like
            # there, only an empty page is the end: Milvus may stop early.
            page: list[Fields] = list(
                self._call(
                    "query",
                    name,
                    filter=f'{key} > "{after}"' + (f" and ({expression})" if expression else ""),
                    output_fields=list(fields),
                    limit=size,
                    iterator="True",
                    reduce_stop_for_best="True",
                    guarantee_timestamp=at,
                    timeout=min(seconds_left(), self._timeout),
                )
            )
            if not page:
                return
            page.sort(key=lambda row: str(row[key]))
            yield page
            after = page[-1][key]

    def search(
        self,
        name: str,
        vectors: Sequence[FloatArray],
        expression: str,
        fields: Sequence[str],
        *,
        limit: int,
        ef: int,
        at: int,
        timeout: float,
    ) -> list[list[Fields]]:
        """Returns for each vector the fields of the rows nearest to it, nearest first."""
        found = self._call(
            "search",
            name,
            data=list(vectors),
            filter=expression,
            limit=limit,
            output_fields=list(fields),
            search_params={"params": {"ef": max(ef, limit)}},
            timeout=timeout,
            **_as_of(at),
        )
        return [[dict(hit["entity"]) for hit in hits] for hits in found]

    def _connect(self, settings: IndexerSettings, token: str, database: str) -> Any:
        return self._pymilvus.MilvusClient(
            uri=self._uri,
            token=token,
            db_name=database,
            timeout=settings.milvus_timeout_seconds,
            dedicated=True,
            **({"server_pem_path": str(settings.milvus_ca_file)} if settings.milvus_ca_file else {}),
        )

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        options.setdefault("timeout", self._timeout)
        started = time.monotonic()
        try:
            return getattr(self._client, method)(*arguments, **options)
        except (self._pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            waited = time.monotonic() - started
            raise self._translated(method, error, waited, options["timeout"]) from error

    def _translated(self, method: str, error: Exception, waited: float, timeout: float) -> VitrineError:
        code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
        message = f"Milvus, {method}: {_reason(error)}"
        if code == _COLLECTION_NOT_FOUND:
            return NotFoundError(message)
        if code in (_RATE_LIMIT, _FORCE_DENY):
            return OverloadedError(message, retry_after=_RETRY_AFTER_SECONDS)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED or waited >= timeout:
            return DeadlineError(f"Milvus, {method}: no answer within {waited:.1f} s")
        if code == _UNAVAILABLE or isinstance(code, grpc.StatusCode) or getattr(error, "retriable", False):
            return UnavailableError(message)
        return InternalError(message)


def _pymilvus() -> ModuleType:
    try:
        import pymilvus
    except ImportError as error:
        raise StartError(
            f'engine = "milvus" needs pymilvus: pip install --require-hashes -r requirements/milvus.txt ({error})'
        ) from None
    # It logs each error with a traceback before it raises it; what is raised is logged once, by us.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("pymilvus"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    module: ModuleType = pymilvus
    return module


def _read_token(settings: IndexerSettings) -> str:
    if settings.milvus_token_file is None:
        return ""
    try:
        return settings.milvus_token_file.read_text().strip()
    except OSError as error:
        raise StartError(f"milvus_token_file: {error}") from None


def _as_of(at: int) -> Fields:
    if at == LATEST:
        return {"consistency_level": "Strong"}
    return {"consistency_level": "Customized", "guarantee_timestamp": at}


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return str(error.details() or error.code())
    return str(getattr(error, "message", "") or error)
