"""The same work behind LitServe: raw image bytes in, the vector's bytes out."""

from pathlib import Path
from typing import Annotated, Any

import litserve
from fastapi import Body, Response

from bench.peers.work import PeerSettings, Work

# No `from __future__ import annotations`: LitServe reads the annotation of `request` as it is.
RawBody = Annotated[bytes, Body(media_type="application/octet-stream")]


class Embed(litserve.LitAPI):
    """One process with one session."""

    def setup(self, device: str) -> None:
        """Opens the model."""
        settings = PeerSettings.from_environment()
        self._work = Work(Path(settings.model_dir), threads=settings.threads, spinning=settings.threads > 1)

    def decode_request(self, request: RawBody) -> bytes:
        """Takes the body as it is."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Leaves a batch a list."""
        return inputs

    def predict(self, x: bytes | list[bytes]) -> Any:
        """Embeds one image, or what LitServe batched."""
        if isinstance(x, list):
            return [row.tobytes() for row in self._work(x)]
        return self._work([x])[0].tobytes()

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Gives each its own."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Sends the vector's bytes."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    peer = PeerSettings.from_environment()
    server = litserve.LitServer(
        # With no timeout its idle workers poll without pause; a millisecond is what mosec waits too.
        Embed(max_batch_size=peer.max_batch, batch_timeout=0.001 if peer.max_batch > 1 else 0.0),
        accelerator="cpu",
        workers_per_device=peer.workers,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=peer.port,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
        pretty_logs=False,
    )
