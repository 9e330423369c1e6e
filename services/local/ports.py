"""Ports for the processes of tests, benchmarks and demonstrations."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator
from functools import cache

PORTS = range(15_000, 32_000)
"""Below the ephemeral range, so that no outgoing connection takes one before it is used."""


@cache
def _walk() -> Iterator[int]:
    """Goes round the range from a place of this process's own.

    What was found is so not found again while the process it was for still starts.
    """
    start = random.randrange(len(PORTS))
    return itertools.cycle([*PORTS[start:], *PORTS[:start]])


def free_ports(count: int) -> list[int]:
    """Returns TCP ports on which nobody listens now, other ones than before.

    Raises:
        OSError: There are not as many.
    """
    found: list[int] = []
    for number in itertools.islice(_walk(), len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
        found.append(number)
        if len(found) == count:
            return found
    raise OSError(f"cannot find {count} free ports between {PORTS.start} and {PORTS.stop}")
