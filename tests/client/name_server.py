"""A name server on loopback that knows one name, whose address the test moves."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

_A, _IN = 1, 1


class NameServer(asyncio.DatagramProtocol):
    """Answers A questions with `addresses`, and every other question with nothing."""

    def __init__(self):
        self.addresses = []
        self.questions = 0

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, sender):
        self.questions += 1
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        answers = self.addresses if kind == _A else []
        header = data[:2] + struct.pack("!HHHHH", 0x8580, 1, len(answers), 0, 0)
        records = b"".join(
            # A pointer to the name in the question; no time to live, so that nobody keeps it.
            struct.pack("!HHHIH", 0xC00C, _A, _IN, 0, 4) + socket.inet_aton(address)
            for address in answers
        )
        self._transport.sendto(header + data[12:end] + records, sender)


@asynccontextmanager
async def name_server():
    """A running NameServer, and its `host:port`."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server, "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()
