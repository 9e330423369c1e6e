"""One collection: its store, its writer thread, its snapshots and its segments."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from services.indexer import metrics
from services.indexer.blocks import Snapshot
from services.indexer.builder import BuildJob
from services.indexer.builds import Build, BuildService
from services.indexer.files import disk_bytes, remove_tree
from services.indexer.idle import Idle
from services.indexer.manifest import SegmentEntry, save_manifest
from services.indexer.merging import Part, next_run
from services.indexer.opening import Opened, most_segment_rows
from services.indexer.records import Operation
from services.indexer.search import ROWS_PER_BEAM
from services.indexer.segments import DamagedSegmentError, LoadedSegment, load_segment
from services.indexer.settings import IndexerSettings
from services.indexer.text.feeding import TextFeeder
from services.indexer.text.index import TextIndex
from services.indexer.text.lexicon import DamagedLexiconError, LexiconReader
from services.indexer.writer import GroupCommitWriter, Written
from vitrine.errors import NotFoundError, UnimplementedError
from vitrine.v1 import indexer_pb2

log = structlog.get_logger()


class Collection:
    """A collection being served; everything but `write` (its writer's) belongs to the event loop."""

    def __init__(
        self, opened: Opened, settings: IndexerSettings, builds: BuildService, texts: TextFeeder | None
    ) -> None:
        """`texts`: None where there is no text index."""
        self.spec = opened.store.spec
        self.name = self.spec.name
        self.files = opened.files
        self.store = opened.store
        self.snapshot = opened.snapshot
        self.products = opened.memory.products
        self._memory = opened.memory
        self._entries = opened.entries
        self._settings = settings
        self._builds = builds
        self._blocks_seen: set[str] = set()
        self._compacting: list[int] = []  # last labels that callers of `compact` wait for
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.writer = GroupCommitWriter(
            self.name,
            self,
            window=settings.group_commit_ms / 1_000,
            group=settings.group_commit_points,
            max_queued=settings.max_queued_points,
        )
        self._changed = asyncio.Event()
        self._idle = Idle(settings.seal_idle_seconds, self._seal_what_rests)
        self.text: TextIndex | None = None
        self._texts = texts
        if texts is not None:
            self.text = TextIndex(self.name, opened.files.database, self.snapshot.generation)
        self._published()
        self.go_on()

    async def wait_generation(self, generation: int) -> None:
        """Returns once a search sees `generation`.

        Raises:
            NotFoundError: The collection was dropped meanwhile.
        """
        if self.snapshot.generation >= generation:
            return
        reached: asyncio.Future[None] = self._loop.create_future()
        entry = (generation, reached)
        self._waiters.append(entry)
        try:
            await reached
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(entry)

    async def text_at(self, generation: int) -> LexiconReader:
        """Returns the lexicon once it stands for `generation`.

        Raises:
            NotFoundError: The collection was dropped meanwhile.
            UnimplementedError: The shard keeps no text index.
        """
        if self._texts is None or self.text is None:
            raise UnimplementedError("SearchText: text_index is off on this shard")
        return await self._texts.reach(self.text, generation)

    def damaged_text(self, lexicon: LexiconReader, error: DamagedLexiconError) -> None:
        """Has a lexicon made anew in which a search found damage."""
        if self._texts is not None and self.text is not None:
            log.error("text index damaged: made anew", collection=self.name, reason=str(error))
            self.text.rebuild(lexicon)
            self._texts.wake()

    def write(self, operations: Sequence[Operation]) -> Written:
        """Commits operations and makes them searchable; the writer thread's.

        Raises:
            VitrineError: Nothing was stored.
        """
        commit = self.store.commit(operations)
        if self.text is not None:
            self.text.changed(commit.generation, commit.products)
        self._publish(self._memory.apply(commit))
        return Written(commit.outcomes, commit.generation)

    def info(self) -> indexer_pb2.CollectionInfo:
        """Describes the collection; walks its folder, so not for the event loop."""
        snapshot = self.snapshot
        return indexer_pb2.CollectionInfo(
            spec=self.spec,
            points=snapshot.points,
            products=snapshot.products,
            tombstones=snapshot.tombstones,
            segments=snapshot.segments,
            fresh_points=snapshot.fresh_points,
            generation=snapshot.generation,
            dead_rows=snapshot.dead_rows,
            disk_bytes=disk_bytes(self.files.directory),
        )

    def rest(self) -> None:
        """Begins no more builds and text jobs, until it goes on; one under way may fail, and nobody minds."""
        self._builds.remove(self)
        if self._texts is not None and self.text is not None:
            self._texts.rest(self.text)

    def go_on(self) -> None:
        """Begins builds and text jobs, at first or after a rest."""
        self._builds.add(self)
        if self._texts is not None and self.text is not None:
            self._texts.add(self.text)

    async def close(self, *, discard: bool) -> None:
        """Stops writing and closes the store; `discard` refuses what is queued instead of committing it."""
        self._closed = True
        self._idle.stop()
        self._builds.remove(self)
        if self._texts is not None and self.text is not None:
            self._texts.remove(self.text)
        self._changed.set()
        await self.writer.close(discard=discard)
        for _, reached in self._waiters:
            if not reached.done():
                reached.set_exception(NotFoundError(f"collection {self.name!r} was dropped, or the shard is stopping"))
        await asyncio.to_thread(self.store.close)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._retire_segments()
        self._loop.call_soon_threadsafe(self._published)

    def _published(self) -> None:
        snapshot = self.snapshot
        for generation, reached in self._waiters:
            if generation <= snapshot.generation and not reached.done():
                reached.set_result(None)
        if self._closed:
            return
        waiting = {view.unit.name for view in snapshot.views[:-1] if view.unit.graph is None}
        if not waiting <= self._blocks_seen:
            self._blocks_seen |= waiting
            # The records of a full block stay. Left to the collector, each of its full passes would walk all records
            # of the process (measured: 40 ms for 200,000); set apart, they are walked this once.
            gc.collect()
            gc.freeze()
        self._idle.stir(snapshot.generation)
        self._builds.wake()
        if self._texts is not None and self.text is not None and self.text.published(self._loop.time()):
            self._texts.wake()
        self._changed.set()
        for gauge, value in (
            (metrics.POINTS, snapshot.points),
            (metrics.PRODUCTS, snapshot.products),
            (metrics.TOMBSTONES, snapshot.tombstones),
            (metrics.SEGMENTS, snapshot.segments),
            (metrics.FRESH_POINTS, snapshot.fresh_points),
            (metrics.GENERATION, snapshot.generation),
            (metrics.DEAD_ROWS, snapshot.dead_rows),
            (metrics.BUILDS_WAITING, len(waiting)),
        ):
            gauge.labels(self.name).set(value)

    async def compact(self) -> tuple[int, int]:
        """Merges everything stored by now as far as it goes and drops its dead rows; returns segments before and after.

        Raises:
            NotFoundError: The collection was dropped meanwhile.
        """
        before = self.snapshot.segments
        snapshot = await self.writer.run(self._seal)
        last = max((int(view.labels[-1]) for view in snapshot.views[:-1]), default=-1)
        self._compacting.append(last)
        try:
            self._builds.wake()
            while self._next_run(frozenset()):
                self._changed.clear()
                await self._changed.wait()
                if self._closed:
                    raise NotFoundError(f"collection {self.name!r} was dropped, or the shard is stopping")
        finally:
            self._compacting.remove(last)
        return before, self.snapshot.segments

    def next_build(self, held: frozenset[str]) -> Build | None:
        """Returns what to build next, None where nothing; see `Source`."""
        run = self._next_run(held)
        if self._closed or not run:
            return None
        names = tuple(part.name for part in run)
        views = [view for view in self.snapshot.views if view.unit.name in names]
        segment = f"{int(views[0].labels[0]):016x}-{uuid.uuid4().hex[:8]}"
        job = BuildJob(
            database=self.files.database,
            target=self.files.segments / segment,
            scratch=self.files.scratch / segment,
            first_label=int(views[0].labels[0]),
            last_label=int(views[-1].labels[-1]),
            rows=sum(part.live for part in run),
            dim=self.spec.vector.dim,
            metric=self.spec.vector.metric,
            m=self.spec.hnsw.m or self._settings.default_m,
            ef_construction=self.spec.hnsw.ef_construction or self._settings.default_ef_construction,
            threads=self._settings.resolved_build_threads,
            reduce=self._settings.reduce_vectors,
        )

        def discard() -> None:
            for path in (job.scratch, job.target):
                remove_tree(path)

        return Build(
            kind="seal" if run[0].fresh else "merge" if len(run) > 1 else "purge",
            units=names,
            job=job,
            install=lambda answer, give_way: self._install(names, job.target, answer.entry, give_way),
            discard=discard,
        )

    def _next_run(self, held: frozenset[str]) -> list[Part]:
        parts = [
            Part(view.unit.name, view.live_count, view.length - view.live_count, view.unit.graph is None)
            for view in self.snapshot.views[:-1]
        ]
        last = max(self._compacting, default=-1)
        graphs = [view.unit.graph for view in self.snapshot.views if view.unit.graph is not None]
        largest = max(graphs, key=lambda graph: graph.count, default=None)
        return next_run(
            parts,
            most_rows=most_segment_rows(self.spec, self._settings, largest.dim if largest else 0),
            dead_share=self._settings.purge_dead_share,
            resting=self._idle.resting,
            compact=sum(int(view.labels[0]) <= last for view in self.snapshot.views[:-1]),
            held=held,
        )

    async def _install(
        self, names: Sequence[str], target: Path, entry: SegmentEntry | None, give_way: Callable[[], None]
    ) -> None:
        """Loads a finished segment and lets it take the place of the units it was built from.

        Raises:
            DamagedSegmentError, OSError, ValueError: It cannot; they stay.
        """
        if entry is None:  # every point was deleted, and the units with the last of them
            if left := [view.unit.name for view in self.snapshot.views if view.unit.name in names and view.live_count]:
                # Else it would be built again at once, for ever.
                raise ValueError(f"the database holds none of the live points of {', '.join(left)}")
            return
        try:
            with metrics.SEGMENT_LOAD_SECONDS.time():
                segment = await asyncio.to_thread(
                    load_segment,
                    target,
                    entry,
                    dim=self.spec.vector.dim,
                    metric=self.spec.vector.metric,
                    give_way=give_way,
                )
            await self.writer.run(lambda: self._swap(names, segment, entry))
        except (NotFoundError, DamagedSegmentError):
            if not self._closed:  # else dropped while it was built; its folder went with it
                raise

    async def _seal_what_rests(self) -> None:
        """Lets the block being filled become a segment where a graph is worth it, and segments grow together."""
        self._builds.wake()
        if self.snapshot.views[-1].live_count >= ROWS_PER_BEAM * self._settings.default_ef:
            with contextlib.suppress(NotFoundError):  # dropped this instant
                await self.writer.run(self._seal)

    def _seal(self) -> Snapshot:
        """Runs on the writer thread."""
        self._publish(self._memory.seal())
        return self.snapshot

    def _swap(self, names: Sequence[str], segment: LoadedSegment, entry: SegmentEntry) -> None:
        """Runs on the writer thread, so that no commit falls between."""
        snapshot = self._memory.swap(names, segment)
        if snapshot is None:
            remove_tree(self.files.segments / entry.name)
            return
        # In the manifest from the same instant on as what it replaces is not: they share labels.
        self._entries[entry.name] = entry
        self._publish(snapshot)
        self._save_manifest()

    def _retire_segments(self) -> None:
        """Removes segments whose last point has died; the writer thread's."""
        serving = {view.unit.name for view in self.snapshot.views if view.unit.graph is not None}
        gone = self._entries.keys() - serving
        if not gone:
            return
        for name in gone:
            del self._entries[name]
        self._save_manifest()
        for name in gone:
            remove_tree(self.files.segments / name)  # still mapped where a search reads it

    def _save_manifest(self) -> None:
        try:
            save_manifest(self.files.directory, list(self._entries.values()))
        except OSError as error:
            if not self.files.directory.exists():  # dropped this instant, folder first
                return
            # Segments can always be made again from the store, so this costs the next start time and nothing else.
            log.error("manifest not saved; the next start rebuilds segments", collection=self.name, error=str(error))

    def segment_entries(self) -> list[SegmentEntry]:
        """Returns the segments that the manifest lists; the writer thread's."""
        return list(self._entries.values())
