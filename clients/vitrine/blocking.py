"""The client for synchronous code: what `AsyncVitrine` has, with the same arguments and the same words about them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from vitrine.client import DEFAULT_GATEWAY, AsyncVitrine
from vitrine.credentials import Tls

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Item = TypeVar("Item")


def _waiting(
    method: Callable[Concatenate[AsyncVitrine, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Vitrine, Arguments], Result]:
    @wraps(method)
    def call(self: Vitrine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return self._run(method(self._client, *args, **kwargs))

    return _told(call)


def _iterating(
    method: Callable[Concatenate[AsyncVitrine, Arguments], AsyncIterator[Item]],
) -> Callable[Concatenate[Vitrine, Arguments], Iterator[Item]]:
    @wraps(method)
    def call(self: Vitrine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Iterator[Item]:
        items = method(self._client, *args, **kwargs)
        while (item := self._run(_next(items))) is not None:
            yield item

    return _told(call)


Method = TypeVar("Method", bound=Callable[..., Any])


def _told(call: Method) -> Method:
    """Makes the words of an asynchronous method those of a synchronous one."""
    call.__qualname__ = call.__qualname__.replace("AsyncVitrine", "Vitrine")
    call.__doc__ = (call.__doc__ or "").replace("await ", "").replace("async for", "for")
    call.__annotations__ = {
        name: kind.replace("AsyncIterator", "Iterator") for name, kind in call.__annotations__.items()
    }
    return call


class Vitrine:
    """Searches a running Vitrine, from synchronous code; safe to share between threads. Close it when done.

    The methods, arguments, timeouts, retries and errors are those of `AsyncVitrine`, which runs on an event loop in a
    thread behind it. Not to be shared with a forked process: let each open its own.

    Example:
        with Vitrine("127.0.0.1:50050") as shop:
            answer = shop.search("catalogue", image=Path("photo.jpg").read_bytes(), k=5, timeout=2)
            print([(product.product_id, product.score) for product in answer.products])
    """

    def __init__(
        self,
        gateway: str = DEFAULT_GATEWAY,
        *,
        caller: str = "",
        tls: Tls | None = None,
        token: str | Path | None = None,
    ) -> None:
        """As `AsyncVitrine`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vitrine-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_open(gateway, caller, tls, token))
        except BaseException:
            self._end()
            raise

    search = _waiting(AsyncVitrine.search)
    search_pages = _iterating(AsyncVitrine.search_pages)
    recommend = _waiting(AsyncVitrine.recommend)
    recognize = _waiting(AsyncVitrine.recognize)
    record_feedback = _waiting(AsyncVitrine.record_feedback)
    feedback = _iterating(AsyncVitrine.feedback)
    get = _waiting(AsyncVitrine.get)
    status = _waiting(AsyncVitrine.status)

    def close(self) -> None:
        """Closes the connections and ends the thread."""
        if self._thread.is_alive():
            self._run(self._client.close())
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _open(gateway: str, caller: str, tls: Tls | None, token: str | Path | None) -> AsyncVitrine:
    return AsyncVitrine(gateway, caller=caller, tls=tls, token=token)


async def _next(items: AsyncIterator[Item]) -> Item | None:
    return await anext(items, None)
