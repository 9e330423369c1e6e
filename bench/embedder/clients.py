"""The leanest caller of each protocol: requests are prebuilt bytes, answers are only measured and counted.

The load generator runs on the cores of the service it loads, so every protocol's caller must cost as little as it can.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, cast

import grpc

from bench.embedder.http2 import Answer, Http2Connection, grpc_message, header_block
from vitrine.errors import from_rpc_error, from_status
from vitrine.multiplex.channel import EXCHANGE
from vitrine.v1 import embedder_pb2, multiplex_pb2

EMBED = "/vitrine.v1.Embedder/Embed"
# Of `ExchangeRequest.calls`, `Call.id` and `Call.timeout_seconds`.
_CALL_TAG, _ID_TAG, _TIMEOUT_TAG = b"\x0a", b"\x08", b"\x21"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CODES: dict[int | None, str] = {code.value[0]: code.name for code in grpc.StatusCode}
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class RefusedError(Exception):
    """A call that brought no vector."""

    def __init__(self, code: str, *, advised: bool = False, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.advised = advised
        """Whether the answer says when to come back, as far as this client reads it."""
        self.retry_after = retry_after
        """Seconds; None: there is no advice, or this client does not read it."""


class Call(Protocol):
    """One caller's way to the service; one call at a time."""

    async def __call__(self, number: int, timeout: float | None = None) -> bytes:
        """Sends one image and returns the answer's body, or raises `RefusedError`."""


class GrpcTarget:
    """`vitrine.v1.Embedder` on one channel that all callers share."""

    def __init__(self, address: str, images: Sequence[bytes], answer_bytes: int) -> None:
        """`answer_bytes`: a shorter answer has no vector in it."""
        self._answer_bytes = answer_bytes
        self._requests = embed_requests(images)
        self._items = [
            embedder_pb2.EmbedStreamRequest(image=embedder_pb2.ImageInput(data=data)).SerializeToString()
            for data in images
        ]
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        # Neither serializer nor deserializer: bytes as they are.
        self._embed: Any = self._channel.unary_unary(EMBED)
        self._stream: Any = self._channel.stream_stream("/vitrine.v1.Embedder/EmbedStream")

    async def caller(self) -> Call:
        """Returns one more caller."""
        return self._one

    async def _one(self, number: int, timeout: float | None = None) -> bytes:
        try:
            body: bytes = await self._embed(self._requests[number % len(self._requests)], timeout=timeout)
        except grpc.aio.AioRpcError as error:
            retry_after = from_rpc_error(error).retry_after
            raise RefusedError(error.code().name, advised=retry_after is not None, retry_after=retry_after) from None
        if not has_vector(body, self._answer_bytes):
            result = embedder_pb2.EmbedResponse.FromString(body).results[0]
            raise RefusedError(f"image: {result.status.message}")
        return body

    async def stream(self, go_on: Callable[[], bool], answered: Callable[[bool], None]) -> None:
        """Streams images as fast as they are taken while `go_on()`; tells of every answer whether it has a vector."""

        async def requests() -> AsyncIterator[bytes]:
            number = 0
            while go_on():
                yield self._items[number % len(self._items)]
                number += 1

        async for body in self._stream(requests()):
            answered(has_vector(body, self._answer_bytes))

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()


class _LeanTarget(ABC):
    """`Embed` by the leanest client there is (`bench.embedder.http2`), on one connection for all callers."""

    def __init__(self, address: str, path: str, answer_bytes: int) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._answer_bytes = answer_bytes
        self._headers = header_block(
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", address),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        )
        self._connecting: asyncio.Task[None] | None = None
        self._connection: Http2Connection | None = None

    async def caller(self) -> Call:
        """Returns one more caller; the first connects."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        await asyncio.shield(self._connecting)
        return self._one

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(Http2Connection, self._host, self._port)

    @abstractmethod
    async def _one(self, number: int, timeout: float | None = None) -> bytes:
        """As `Call`."""

    def _checked(self, message: bytes) -> bytes:
        if not has_vector(message, self._answer_bytes):
            raise RefusedError("image refused")
        return message

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()


class LeanStreamTarget(_LeanTarget):
    """On one stream of calls, as a gateway makes them."""

    def __init__(self, address: str, images: Sequence[bytes], answer_bytes: int) -> None:
        super().__init__(address, EXCHANGE, answer_bytes)
        self._calls = [
            multiplex_pb2.Call(method=EMBED, request=request).SerializeToString() for request in embed_requests(images)
        ]
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[multiplex_pb2.Answer]] = {}

    async def _connect(self) -> None:
        await super()._connect()
        assert self._connection is not None
        self._greeting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send, end = self._connection.open(self._headers, self._take)
        end.add_done_callback(self._lost)
        await self._greeting

    def _take(self, message: bytes) -> None:
        if not self._greeting.done():
            self._greeting.set_result(None)
        for answer in multiplex_pb2.ExchangeResponse.FromString(message).answers:
            if (waiting := self._waiting.pop(answer.id, None)) and not waiting.done():
                waiting.set_result(answer)

    def _lost(self, end: asyncio.Future[Answer]) -> None:
        """Fails what waits, as a lost connection fails an RPC."""
        error = end.exception() or ConnectionError("the server ended the stream of calls")
        for waiting in (self._greeting, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(error)

    async def _one(self, number: int, timeout: float | None = None) -> bytes:
        mine = next(self._numbers)
        waiting = self._waiting[mine] = asyncio.get_running_loop().create_future()
        # The call's id and, if any, seconds; then the rest of its fields, which is most of it. Copied once, not twice.
        head = _ID_TAG + _varint(mine) + (b"" if timeout is None else _TIMEOUT_TAG + struct.pack("<d", timeout))
        rest = self._calls[number % len(self._calls)]
        self._send(grpc_message(_CALL_TAG + _varint(len(head) + len(rest)) + head, rest))
        try:
            async with asyncio.timeout(timeout):
                answer = await waiting
        except TimeoutError:
            raise RefusedError("DEADLINE_EXCEEDED") from None
        finally:
            self._waiting.pop(mine, None)
        if error := from_status(answer.status):
            raise RefusedError(error.code.name, advised=error.retry_after is not None, retry_after=error.retry_after)
        return self._checked(answer.response)


class LeanRpcTarget(_LeanTarget):
    """An RPC for each image. Of `google.rpc` details it only sees that they are there."""

    def __init__(self, address: str, images: Sequence[bytes], answer_bytes: int) -> None:
        super().__init__(address, EMBED, answer_bytes)
        self._requests = [grpc_message(request) for request in embed_requests(images)]

    async def _one(self, number: int, timeout: float | None = None) -> bytes:
        assert self._connection is not None
        headers = self._headers
        if timeout is not None:
            headers += header_block(("grpc-timeout", f"{int(timeout * 1000)}m"))
        try:
            async with asyncio.timeout(timeout):
                answer = await self._connection.call(headers, self._requests[number % len(self._requests)])
        except TimeoutError:
            raise RefusedError("DEADLINE_EXCEEDED") from None
        if answer.status != 0:
            raise RefusedError(_CODES.get(answer.status, "no status"), advised=answer.details)
        return self._checked(answer.message)


class HttpTarget:
    """`POST` of the image to one path; each caller has a connection of its own, kept alive."""

    def __init__(self, address: str, path: str, images: Sequence[bytes], answer_bytes: int) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._answer_bytes = answer_bytes
        self._requests = [
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
            for data in images
        ]
        self._transports: list[asyncio.Transport] = []

    async def caller(self) -> Call:
        """Connects one more caller."""
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(_Connection, self._host, self._port)
        self._transports.append(transport)

        async def call(number: int, timeout: float | None = None) -> bytes:
            async with asyncio.timeout(timeout):
                status, body = await connection.exchange(self._requests[number % len(self._requests)])
            if status != 200 or len(body) != self._answer_bytes:
                raise RefusedError(f"HTTP {status}, {len(body)} bytes")
            return body

        return call

    async def close(self) -> None:
        """Closes the connections."""
        for transport in self._transports:
            transport.close()


class _Connection(asyncio.Protocol):
    """HTTP/1.1, one exchange at a time, answers with a Content-Length."""

    _transport: asyncio.Transport
    _answer: asyncio.Future[tuple[int, bytes]]

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Sends a request and returns the answer's status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end]
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        body = self._received[head_end + 4 :]
        if len(body) < size:
            return
        self._received = body[size:]
        if not self._answer.done():
            self._answer.set_result((int(head[9:12]), body[:size]))

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))


Target = GrpcTarget | LeanStreamTarget | LeanRpcTarget | HttpTarget


def _varint(number: int) -> bytes:
    """Returns a number as protobuf encodes it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def embed_requests(images: Sequence[bytes]) -> list[bytes]:
    """Returns an `EmbedRequest` for each image, encoded."""
    return [
        embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=data)]).SerializeToString() for data in images
    ]


def has_vector(body: bytes, least: int) -> bool:
    """Returns whether the first result in an encoded answer of either RPC is OK, and long enough to hold a vector.

    The result comes first, and its status, empty where it is OK, first in it. Decoding would cost ten times as much.
    """
    at = 1
    while at < len(body) and body[at] & 0x80:  # the result's length
        at += 1
    return len(body) >= least and body[at + 1 : at + 3] == b"\x0a\x00"


def open_target(protocol: str, address: str, images: Sequence[bytes], dim: int) -> Target:
    """Opens a target; `protocol` is `lean-stream`, `lean-rpc`, `grpc` (gRPC's own client), or `http:PATH`."""
    if protocol == "lean-stream":
        return LeanStreamTarget(address, images, dim * 4)
    if protocol == "lean-rpc":
        return LeanRpcTarget(address, images, dim * 4)
    if protocol == "grpc":
        return GrpcTarget(address, images, dim * 4)
    return HttpTarget(address, protocol.removeprefix("http:"), images, dim * 4)
