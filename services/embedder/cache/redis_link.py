"""One connection to the shared Redis, which nobody waits for longer than a bound, dead or alive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis import exceptions as redis_errors

from services.embedder import metrics
from services.embedder.cache.breaker import Breaker
from services.embedder.cache.redis_address import RedisAddress, RedisConnection
from services.embedder.cache.redis_failures import HINTS, reason_of

log = structlog.get_logger()

Command = tuple[bytes, *tuple[bytes | int, ...]]
Reply = Any
"""Whatever came back: nothing about it is certain."""

# Commands sent in one go: enough for thousands of images a second over a network with 1 ms of round trip, and so few
# that the largest vectors get through a slow one within the timeout.
_PIPELINE = 32
_MAX_WAITING = 1024
_MAX_PENDING_WRITES = 256
# Nobody waits for a connection to be made, so it may take the handshakes of TLS over a long way.
_CONNECT_SECONDS = 1.0
# The command that matters, under a key prefix that an access list for this cache allows: answers "".
_PROBE: Command = (b"GETRANGE", b"vitrine:vector:probe", 0, 0)


@dataclass(eq=False)
class _Order:
    commands: tuple[Command, ...]
    answer: asyncio.Future[list[Reply] | None] | None
    """None: a write, for whose answer nobody waits."""

    @property
    def unwanted(self) -> bool:
        return self.answer is not None and self.answer.done()


class RedisLink:
    """Sends commands in pipelines over one connection, in the order in which they come.

    A task of its own owns the connection: callers come and go without touching it, and it is mended behind their backs.
    While it is down, asking costs nothing. A server's words are never logged: they can quote a password back.
    """

    def __init__(
        self,
        address: RedisAddress,
        timeout: float,
        *,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`timeout` in seconds bounds every exchange, and every wait for one."""
        self._name = address.name
        self._connection: RedisConnection = address.connection()
        self._timeout = timeout
        self._breaker = breaker or Breaker()
        self._sleep = sleep
        self._orders: deque[_Order] = deque()
        self._writes = 0
        self._arrived = asyncio.Event()
        self._tried = asyncio.Event()
        self._told_up: bool | None = None
        self._told_refused: set[bytes] = set()
        self._running: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether commands are being answered."""
        return self._breaker.closed

    async def start(self) -> None:
        """Returns once the server answered, or failed to twice."""
        self._running = asyncio.create_task(self._run())
        await self._tried.wait()

    async def close(self) -> None:
        """Ends the connection; writes that are pending are lost."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._breaker.failed()
        self._leave_unanswered(())

    async def ask(self, *commands: Command) -> list[Reply] | None:
        """Returns the replies; None within the timeout where there are none, or the server refuses a command."""
        if not self.up or len(self._orders) - self._writes >= _MAX_WAITING:
            _unanswered("read", "full" if self.up else "down")
            return None
        answer: asyncio.Future[list[Reply] | None] = asyncio.get_running_loop().create_future()
        self._push(_Order(commands, answer))
        try:
            async with asyncio.timeout(self._timeout):
                replies = await answer
        except TimeoutError:
            _unanswered("read", "late")
            return None
        if replies is None:
            _unanswered("read", "failed")
        return replies

    def tell(self, *commands: Command) -> None:
        """Sends commands when there is time; drops them where too many wait, or the server is down."""
        if not self.up or self._writes >= _MAX_PENDING_WRITES:
            _unanswered("write", "full" if self.up else "down")
        else:
            self._writes += 1
            self._push(_Order(commands, None))

    def _push(self, order: _Order) -> None:
        self._orders.append(order)
        self._arrived.set()

    def _collect(self) -> list[_Order]:
        """Takes whole orders until a pipeline is full."""
        taken: list[_Order] = []
        room = _PIPELINE
        while self._orders and room > 0:
            order = self._orders.popleft()
            self._writes -= order.answer is None
            if not order.unwanted:
                taken.append(order)
                room -= len(order.commands)
        return taken

    async def _run(self) -> None:
        try:
            while True:
                taken: list[_Order] = []
                try:
                    await self._connect()
                    self._came_up()
                    while True:
                        await self._arrived.wait()
                        if taken := self._collect():
                            await self._exchange(taken)
                        else:
                            self._arrived.clear()
                except Exception as error:  # whatever a server may do, it makes misses
                    await self._sleep(self._went_down(error, taken))
        finally:
            await self._connection.disconnect(nowait=True)

    async def _connect(self) -> None:
        await self._connection.disconnect(nowait=True)
        async with asyncio.timeout(max(_CONNECT_SECONDS, self._timeout)):
            await self._connection.connect_check_health(check_health=False)
        replies = await self._talk([_PROBE])
        if _refused(replies[0]):
            raise replies[0]
        if replies != [b""]:
            raise redis_errors.InvalidResponse

    async def _exchange(self, orders: Sequence[_Order]) -> None:
        replies = iter(await self._talk([command for order in orders for command in order.commands]))
        for order in orders:
            answers = [next(replies) for _ in order.commands]
            refusals = [
                (command, answer) for command, answer in zip(order.commands, answers, strict=True) if _refused(answer)
            ]
            for command, refusal in refusals:
                self._note_refusal(command, refusal)
            if order.answer is not None and not order.answer.done():
                order.answer.set_result(None if refusals else answers)

    async def _talk(self, commands: Sequence[Command]) -> list[Reply]:
        """Returns one reply for each command; a refusal is a reply."""
        connection = self._connection
        if await connection.can_read():  # closed, or answers that nobody asked for and would be taken for others
            raise redis_errors.ConnectionError
        replies: list[Reply] = []
        async with asyncio.timeout(self._timeout):
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response(disable_decoding=True))
                except redis_errors.ResponseError as refusal:
                    replies.append(refusal)
        return replies

    def _came_up(self) -> None:
        self._breaker.succeeded()
        self._tried.set()
        metrics.CACHE_REDIS_UP.set(1)
        self._told_refused.clear()
        if self._told_up is not True:
            self._told_up = True
            log.info("the shared cache answers", redis=self._name)

    def _went_down(self, error: Exception, taken: Sequence[_Order]) -> float:
        """Returns the seconds until the next try."""
        delay = self._breaker.failed()
        reason = reason_of(error)
        metrics.CACHE_REDIS_UP.set(0)
        metrics.CACHE_REDIS_FAILURES.labels(reason).inc()
        self._leave_unanswered(taken)
        if not delay:  # retried at once: only what outlasts that is worth a line
            return delay
        self._tried.set()
        if self._told_up is not False:
            self._told_up = False
            log.warning(
                "the shared cache does not answer; images are embedded without it",
                redis=self._name,
                reason=reason,
                error=type(error).__name__,
                hint=HINTS[reason],
            )
        return delay

    def _leave_unanswered(self, taken: Sequence[_Order]) -> None:
        for order in (*taken, *self._orders):
            if order.answer is None:
                _unanswered("write", "failed")
            elif not order.answer.done():
                order.answer.set_result(None)
        self._orders.clear()
        self._writes = 0

    def _note_refusal(self, command: Command, refusal: Reply) -> None:
        metrics.CACHE_REDIS_FAILURES.labels("refused").inc()
        if command[0] not in self._told_refused:
            self._told_refused.add(command[0])
            log.warning(
                "the shared cache refuses a command",
                redis=self._name,
                command=command[0].decode(),
                error=type(refusal).__name__,
                hint=HINTS["refused"],
            )


def _refused(reply: Reply) -> bool:
    return isinstance(reply, redis_errors.ResponseError)


def _unanswered(operation: str, reason: str) -> None:
    metrics.CACHE_REDIS_UNANSWERED.labels(operation, reason).inc()
