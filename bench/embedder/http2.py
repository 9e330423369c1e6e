"""Just enough of HTTP/2 (RFC 9113) to make gRPC calls from prebuilt bytes, at the cost of the plain HTTP callers.

gRPC's own Python client costs 0.5 to 1 ms of CPU for an image, on the cores of the service it loads; this one costs 0.2
to 0.35, as the HTTP/1.1 callers do that load the other servers. The server is told to use no header table (RFC 7541,
4.2), so that trailers can be searched as they are.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 4, 5
_CANCEL = 8
_DEFAULT_WINDOW = 65_535
_DEFAULT_FRAME = 16_384
_LARGEST_WINDOW = 2**31 - 1
_MESSAGE_HEAD = 5
_STATUS = re.compile(rb"\x0bgrpc-status[\x01\x02](\d+)")
_DETAILS = b"\x17grpc-status-details-bin"


class Answer(NamedTuple):
    """What a call brought."""

    message: bytes
    """Empty where there is none."""
    status: int | None
    """gRPC status; None where the trailers do not say."""
    details: bool
    """Whether there are `google.rpc` details."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(*fields: tuple[str, str]) -> bytes:
    """Returns header fields as HPACK literals that leave no trace in the tables (RFC 7541, 6.2.2)."""
    block = bytearray()
    for field in fields:
        block.append(0)
        for text in field:
            if len(text) > 126:
                raise ValueError(f"{text!r} is longer than one length byte tells")
            block.append(len(text))
            block += text.encode("ascii")
    return bytes(block)


def grpc_message(*content: bytes) -> bytes:
    """Returns a message as gRPC frames it: not compressed, its length, its bytes."""
    return b"".join((struct.pack(">BI", 0, sum(map(len, content))), *content))


class _Stream:
    def __init__(self, number: int, window: int, take: Callable[[bytes], None] | None = None) -> None:
        """`take`: gets the messages of a stream that stays open; None: one message each way."""
        self.number = number
        self.rest = memoryview(b"")
        self.waiting: deque[bytes] = deque()
        self.window = window
        self.take = take
        self.body = bytearray()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def received(self, payload: bytes) -> None:
        """Keeps what came; a stream that stays open hands on the messages that are whole."""
        self.body += payload
        while self.take is not None and len(self.body) >= _MESSAGE_HEAD:
            end = _MESSAGE_HEAD + int.from_bytes(self.body[1:_MESSAGE_HEAD], "big")
            if len(self.body) < end:
                return
            self.take(bytes(self.body[_MESSAGE_HEAD:end]))
            del self.body[:end]


class Http2Connection(asyncio.Protocol):
    """A client's connection without TLS; any number of calls at once."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._blocked: dict[int, _Stream] = {}
        self._next = 1
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._frame_bytes = _DEFAULT_FRAME
        self._unacknowledged = 0
        self._lost: Exception | None = None

    async def call(self, headers: bytes, message: bytes) -> Answer:
        """Sends a header block and a framed message; a call that is cancelled is cancelled at the server too.

        Raises:
            ConnectionError: The server reset the stream or closed the connection.
        """
        if self._lost:
            raise self._lost
        stream = self._begin(headers, _Stream(self._next, self._stream_window), message)
        try:
            return await stream.answer
        except asyncio.CancelledError:
            self._transport.write(frame(_RESET, 0, stream.number, struct.pack(">I", _CANCEL)))
            raise
        finally:
            self._streams.pop(stream.number, None)
            self._blocked.pop(stream.number, None)

    def open(
        self, headers: bytes, take: Callable[[bytes], None]
    ) -> tuple[Callable[[bytes], None], asyncio.Future[Answer]]:
        """Opens a stream; `take` gets its messages.

        Returns:
            What sends a framed message on it, and its end.
        """
        stream = self._begin(headers, _Stream(self._next, self._stream_window, take))

        def send(message: bytes) -> None:
            stream.waiting.append(message)
            self._transport.write(b"".join(self._sendable(stream)))

        return send, stream.answer

    def _begin(self, headers: bytes, stream: _Stream, *messages: bytes) -> _Stream:
        self._next += 2
        self._streams[stream.number] = stream
        stream.waiting.extend(messages)
        parts = [frame(_HEADERS, _END_HEADERS, stream.number, headers), *self._sendable(stream)]
        self._transport.write(b"".join(parts))
        return stream

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opens both windows for answers as wide as they go, and asks for headers without a table."""
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW)
        more = frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))
        self._transport.write(_PREFACE + frame(_SETTINGS, 0, 0, settings) + more)

    def data_received(self, data: bytes) -> None:
        """Handles the frames that are whole."""
        received = self._received
        received += data
        at = 0
        while len(received) - at >= 9:
            end = at + 9 + int.from_bytes(received[at : at + 3], "big")
            if len(received) < end:
                break
            number = int.from_bytes(received[at + 5 : at + 9], "big") & _LARGEST_WINDOW
            self._handle(received[at + 3], received[at + 4], number, bytes(received[at + 9 : end]))
            at = end
        del received[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """Fails what waits."""
        self._fail(error or ConnectionError("the server closed the connection"))

    def _handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if kind == _DATA:
            if flags & _PADDED:
                self._fail(ConnectionError("padded frames are not understood here"))
            if stream:
                stream.received(payload)
            self._unacknowledged += len(payload)
            if self._unacknowledged > _LARGEST_WINDOW // 2:
                self._transport.write(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged)))
                self._unacknowledged = 0
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if number == 0:
                self._window += more
            elif stream:
                stream.window += more
            self._send_blocked()
        elif kind == _RESET and stream and not stream.answer.done():
            stream.answer.set_exception(ConnectionError(f"stream reset, code {int.from_bytes(payload, 'big')}"))
        elif kind == _GOAWAY:
            self._fail(ConnectionError("the server is going away"))
        if kind in (_DATA, _HEADERS, _CONTINUATION) and flags & _END_STREAM and stream and not stream.answer.done():
            status = _STATUS.search(payload)
            details = _DETAILS in payload
            stream.answer.set_result(
                Answer(bytes(stream.body[_MESSAGE_HEAD:]), int(status[1]) if status else None, details)
            )

    def _take_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif key == _MAX_FRAME_SIZE:
                self._frame_bytes = value
        self._transport.write(frame(_SETTINGS, _ACK, 0))
        self._send_blocked()

    def _send_blocked(self) -> None:
        parts = [part for stream in list(self._blocked.values()) for part in self._sendable(stream)]
        if parts:
            self._transport.write(b"".join(parts))

    def _sendable(self, stream: _Stream) -> Iterator[bytes | memoryview]:
        """Yields frames of what is to be sent as far as both windows allow; what is left waits for them to open."""
        while stream.rest or stream.waiting:
            stream.rest = stream.rest or memoryview(stream.waiting.popleft())
            if (size := min(len(stream.rest), self._frame_bytes, self._window, stream.window)) <= 0:
                break
            last = stream.take is None and size == len(stream.rest)
            yield struct.pack(">I", size)[1:] + struct.pack(">BBI", _DATA, _END_STREAM if last else 0, stream.number)
            yield stream.rest[:size]
            stream.rest = stream.rest[size:]
            stream.window -= size
            self._window -= size
        if stream.rest:
            self._blocked[stream.number] = stream
        else:
            self._blocked.pop(stream.number, None)

    def _fail(self, error: Exception) -> None:
        self._lost = error
        for stream in self._streams.values():
            if not stream.answer.done():
                stream.answer.set_exception(error)
