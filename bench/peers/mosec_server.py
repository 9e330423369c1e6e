"""The same work behind mosec: raw image bytes in, the vector's bytes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mosec import Server, Worker

from bench.peers.work import PeerSettings, Work


class Embed(Worker):
    """One process with one session."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        settings = PeerSettings.from_environment()
        self._work = Work(Path(settings.model_dir), threads=settings.threads, spinning=settings.threads > 1)

    def deserialize(self, data: bytes) -> bytes:
        """Takes the body as it is."""
        return data

    def forward(self, data: bytes | list[bytes]) -> Any:
        """Embeds one image, or what mosec batched."""
        if isinstance(data, list):
            return [row.tobytes() for row in self._work(data)]
        return self._work([data])[0].tobytes()

    def serialize(self, data: bytes) -> bytes:
        """Sends the vector's bytes."""
        return data


if __name__ == "__main__":
    peer = PeerSettings.from_environment()
    os.environ.update(MOSEC_ADDRESS="127.0.0.1", MOSEC_PORT=str(peer.port), MOSEC_LOG_LEVEL="warning")
    server = Server()
    # A batch that is not full leaves after max_wait_time milliseconds; 1 is the least mosec takes.
    server.append_worker(Embed, num=peer.workers, max_batch_size=peer.max_batch, max_wait_time=1)
    server.run()
