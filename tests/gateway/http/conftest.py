"""A whole Vitrine with the sample catalogue, and its HTTP API as a person with curl sees it."""

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
import requests

from services.local.__main__ import CATALOGUE
from services.local.stack import ROOT, Ports, Stack
from services.local.supervisor import ProcessSpec, Supervisor
from tests.conftest import STEADY
from vitrine.v1 import search_pb2, search_pb2_grpc

COLLECTION = "catalogue"
PHOTO = CATALOGUE / "queries" / "S0044_v0.jpg"
PRODUCT = "S0044"
"""What the photo shows."""


@dataclass
class Site:
    """The HTTP side of a gateway, whose gRPC side is at `gateway`."""

    address: str
    gateway: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path, **options):
        return self.session.get(self.address + path, timeout=30, **options)

    def post(self, path, **options):
        return self.session.post(self.address + path, timeout=30, **options)

    def search(self, *photos, headers=None, **fields):
        """Searches by photos and form fields."""
        files = [("image", ("photo.jpg", photo, "image/jpeg")) for photo in photos]
        files += [(name, (None, str(value))) for name, value in fields.items()]
        return self.post("/v1/search", files=files, headers=headers)

    def kept_feedback(self):
        """Returns the records of searches that the gateway keeps."""
        with grpc.insecure_channel(self.gateway) as channel:
            pages = search_pb2_grpc.VisualSearchStub(channel).ExportFeedback(search_pb2.ExportFeedbackRequest())
            return [record for page in pages for record in page.queries]


@contextmanager
def running(supervisor, *start):
    """Keeps processes for code that is not async; yields what does `supervisor`'s work meanwhile.

    In a thread, as a browser's loop may run in this one, and in one, as processes end with the thread they come from.
    """
    with ThreadPoolExecutor(1) as thread:
        runner = thread.submit(asyncio.Runner).result()

        def do(work):
            return thread.submit(runner.run, work).result()

        try:
            for each in start:
                do(each())
            yield do
        finally:
            do(supervisor.stop())
            thread.submit(runner.close).result()


def vitrine(stack, *arguments):
    """Runs the command line against a stack."""
    where = ("--gateway", stack.gateway, "--embedder", stack.embedder, "--indexers", ",".join(stack.indexers))
    command = (sys.executable, "-m", "vitrine.cli", *where, *map(str, arguments))
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "clients")})


def ingest(stack, file, collection):
    """Brings a collection up to date with a catalogue file."""
    vitrine(stack, "ingest", file, "--collection", collection)


@pytest.fixture(scope="session")
def stack(tmp_path_factory, lite_model):
    """The processes behind the site, with the sample catalogue in them."""
    stack = Stack(
        tmp_path_factory.mktemp("site"),
        ports=Ports.free(2),
        model_dir=lite_model,
        image_roots=[CATALOGUE],
        environment=STEADY,
    )

    with running(stack.supervisor, stack.start) as stack.do:
        ingest(stack, CATALOGUE / "products.csv", COLLECTION)
        yield stack


@pytest.fixture(scope="session")
def site(stack):
    """The site of the sample catalogue."""
    return Site(stack.page, stack.gateway)


@contextmanager
def lone_gateway(folder, **settings):
    """The site of a gateway whose embedder and shards are closed ports unless `settings` says otherwise."""
    ports = Ports.free(2)
    values = {
        "PORT": ports.gateway,
        "METRICS_PORT": ports.metrics[ports.gateway],
        "HTTP_PORT": ports.http,
        "EMBEDDER": f"127.0.0.1:{ports.embedder}",
        "INDEXERS": ",".join(f"127.0.0.1:{port}" for port in ports.indexers),
        **settings,
    }
    environment = {f"VITRINE_GATEWAY_{name}": str(value) for name, value in values.items()}
    spec = ProcessSpec("gateway", "services.gateway", f"127.0.0.1:{ports.gateway}", environment)
    supervisor = Supervisor(ROOT, folder / "logs")
    with running(supervisor, lambda: supervisor.start(spec)) as do:
        site = Site(f"http://127.0.0.1:{ports.http}")
        site.metrics_port = ports.metrics[ports.gateway]
        site.supervisor, site.do = supervisor, do
        yield site


def problem(response, status, code):
    """Returns the problem that a response tells, once it is one of this kind."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    told = response.json()
    assert (told["status"], told["code"]) == (status, code)
    assert told["request_id"] == response.headers["x-request-id"]
    return told
