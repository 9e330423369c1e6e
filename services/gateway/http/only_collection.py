"""The collection that a request means which names none: the only one there is."""

from __future__ import annotations

import time

from services.gateway.answering import Answering
from vitrine.errors import InvalidArgumentError

_KNOWN_SECONDS = 10.0


class OnlyCollection:
    """Looks up the only collection, and takes it for granted for a few seconds."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._name = ""
        self._until = 0.0

    async def name(self, timeout: float) -> str:
        """Returns its name, within `timeout` seconds.

        Raises:
            InvalidArgumentError: There is none, or more than one.
        """
        if time.monotonic() >= self._until:
            self._name = await self._look(timeout)
            self._until = time.monotonic() + _KNOWN_SECONDS
        return self._name

    async def _look(self, timeout: float) -> str:
        names = [each.name for each in (await self._answering.status(timeout)).collections]
        if len(names) != 1:
            known = f"name one of {', '.join(names)}" if names else "there is none yet"
            raise InvalidArgumentError(f"collection is missing: {known}", field="collection")
        return names[0]
