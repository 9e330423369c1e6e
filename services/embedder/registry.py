"""The models that are served side by side: found by name, added and removed while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import structlog

from services.embedder import metrics
from services.embedder.cache.cache import VectorCache
from services.embedder.cores import Turns
from services.embedder.decoding import Decoding
from services.embedder.model import EmbeddingModel
from services.embedder.pipeline import Pipeline
from services.embedder.settings import EmbedderSettings
from services.runtime import garbage
from services.runtime.server import StartError
from vitrine.errors import NotFoundError, UnavailableError

log = structlog.get_logger()


class Served:
    """One model with its queues, its lanes and those who use it: `with` it, it is not released."""

    def __init__(self, model: EmbeddingModel, pipeline: Pipeline) -> None:
        self.model = model
        self.pipeline = pipeline
        self.draining = asyncio.Event()
        """Set when the model, or the service, goes away: long-lived streams finish what they hold and end."""
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        card = model.card
        self._info = (card.name, card.version, card.fingerprint, model.provider, model.device, card.precision)
        self.announce()

    def announce(self) -> None:
        """Says in the metrics what is served."""
        metrics.MODEL.labels(*self._info).set(1)

    def __enter__(self) -> Self:
        self._users += 1
        self._unused.clear()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    async def retire(self) -> None:
        """Lets its users finish, then releases everything."""
        self.draining.set()
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Releases everything."""
        await asyncio.to_thread(self.pipeline.close)

    def denounce(self) -> None:
        """Takes it out of the metrics."""
        metrics.MODEL.remove(*self._info)


class ModelRegistry:
    """All models of one embedder. The first is the default."""

    def __init__(self, settings: EmbedderSettings, draining: asyncio.Event, cache: VectorCache) -> None:
        self.draining = draining
        self._settings = settings
        self._cache = cache
        self._decoding = Decoding(settings)
        self._turns = Turns()
        self._served: dict[str, Served] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self._watching = asyncio.create_task(self._drain_all(draining))

    async def load(self, folders: Sequence[Path]) -> None:
        """Serves exactly these models from now on. Those that stay are not touched; those that go finish their work.

        Raises:
            StartError: A model cannot be loaded, or two have the same name and version; nothing has changed.
        """
        async with self._loading:
            kept = {served.model.folder: served for served in self._served.values()}
            wanted: list[Served | EmbeddingModel] = []
            for folder in folders:
                served = kept.get(folder)
                current = served is not None and await asyncio.to_thread(served.model.is_current)
                wanted.append(served if served and current else await asyncio.to_thread(self._open, folder))
            names = [each.model.name if isinstance(each, Served) else each.name for each in wanted]
            for name in names:
                if names.count(name) > 1:
                    raise StartError(f"model_dirs: {name} is there {names.count(name)} times; names are unique")
            before = set(self._served.values())
            self._served = {
                name: each if isinstance(each, Served) else Served(each, self._pipeline(each))
                for name, each in zip(names, wanted, strict=True)
            }
            for gone in before - set(self._served.values()):
                log.info("model retired", model=gone.model.name)
                task = asyncio.create_task(self._retire(gone))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def find(self, name: str) -> Served:
        """Returns a model by name, by name@version, or the default where the name is empty.

        Of several versions under a bare name it is the one that is listed first.

        Raises:
            NotFoundError: No such model is served here.
            UnavailableError: The service is stopping.
        """
        if not self._served:
            raise UnavailableError("the embedder is stopping")
        for served in self._served.values():
            if name in ("", served.model.name, served.model.card.name):
                return served
        raise NotFoundError(
            f"model {name[:80]!r} is not served here; served are {', '.join(self._served)}", field="model"
        )

    def all(self) -> list[Served]:
        """Returns what is served, the default first."""
        return list(self._served.values())

    async def close(self) -> None:
        """Releases everything."""
        self._watching.cancel()
        for task in self._retiring:
            task.cancel()
        served, self._served = self.all(), {}
        await asyncio.gather(*(each.close() for each in served), *self._retiring, return_exceptions=True)
        for each in served:
            each.denounce()
        await asyncio.to_thread(self._decoding.close)

    def _open(self, folder: Path) -> EmbeddingModel:
        model = EmbeddingModel(folder, self._settings)
        model.warm_up()
        return model

    def _pipeline(self, model: EmbeddingModel) -> Pipeline:
        return Pipeline(model, self._settings, self._decoding, self._cache, self._turns)

    async def _retire(self, gone: Served) -> None:
        await gone.retire()
        gone.denounce()
        for served in self.all():  # one of them may be the same model, read anew
            served.announce()
        if gone.model.name not in self._served:
            metrics.forget_model(gone.model.name)
        del gone
        garbage.settle()  # its weights were there when the service started

    async def _drain_all(self, draining: asyncio.Event) -> None:
        await draining.wait()
        for served in self._served.values():
            served.draining.set()
