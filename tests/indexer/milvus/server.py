"""A real Milvus on loopback for tests: once a session, on free ports, with a data folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import pytest

from services.local.stack import ROOT, Ports
from tests.conftest import missing

OWN_SERVER = "VITRINE_TEST_MILVUS_URI"
"""Names a Milvus that runs already, of another version for instance; the tests make databases of their own in it."""

_START_SECONDS = 150
_STOP_SECONDS = 5
# Where the server's binary is unpacked once: 440 MB, ten seconds.
_BINARIES = ROOT / ".vitrine" / "milvus-bin"


def need(package):
    """Skips a test without one of the extra's packages; fails it where that must be there."""
    if find_spec(package) is None:
        missing(package, "make .venv/.milvus")


@contextmanager
def milvus_server(folder):
    """Runs a server while the block runs; yields its URI. Skips where the extra may be missing, and is."""
    need("pymilvus")
    if own := os.environ.get(OWN_SERVER):
        yield own
        return
    need("milvus")
    server = Server(folder)
    server.start()
    try:
        yield server.uri
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """One server process, kept on the same data over its restarts."""

    def __init__(self, folder):
        self._folder = folder
        (self._port,) = Ports.free(1).indexers
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process = None

    def start(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        _BINARIES.mkdir(parents=True, exist_ok=True)
        if not (self._folder / "bin").exists():
            (self._folder / "bin").symlink_to(_BINARIES)
        log = self._folder / "server.log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "services.local.child", str(os.getpid())),
                    *("bench.peers.milvus_server", str(self._folder), str(self._port)),
                ],
                cwd=ROOT,
                stdout=sink,
                stderr=sink,
                # The clock that writes wait for; the default is 200 ms.
                env={**os.environ, "PROXY_TIMETICKINTERVAL": "50"},
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2_000:]
                self.stop()
                pytest.fail(f"Milvus does not start:\n{tail}")
            time.sleep(0.2)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def stop(self):
        """Its own stop may take minutes, and what it leaves is deleted."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        if self._process.poll() is None:
            self.kill()

    def _answers(self):
        import pymilvus

        try:
            client = pymilvus.MilvusClient(uri=self.uri, timeout=2, dedicated=True)
        except pymilvus.MilvusException:
            return False
        try:
            # It answers before all its parts do: only a whole round tells.
            client.list_databases()
            schema = client.create_schema(auto_id=False)
            schema.add_field("key", pymilvus.DataType.INT64, is_primary=True)
            schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=2)
            client.drop_collection("probe")
            client.create_collection("probe", schema=schema, timeout=5)
            client.drop_collection("probe")
        except pymilvus.MilvusException:
            return False
        else:
            return True
        finally:
            client.close()


def drop_database(uri, name):
    """Empties and removes a database; a server has room for 64."""
    import pymilvus

    client = pymilvus.MilvusClient(uri=uri, dedicated=True)
    try:
        if name in client.list_databases():
            inside = pymilvus.MilvusClient(uri=uri, db_name=name, dedicated=True)
            for collection in inside.list_collections():
                for alias in inside.describe_collection(collection).get("aliases", ()):
                    inside.drop_alias(alias)
                inside.drop_collection(collection)
            inside.close()
            client.drop_database(name)
    finally:
        client.close()
