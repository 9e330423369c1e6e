"""One small stack with the sample catalogue, for all examples."""

import asyncio
import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from models.tiny import build_tiny
from services.local.stack import ROOT, Ports, Stack
from tests.conftest import STEADY

EXAMPLES = ROOT / "examples"
PRODUCTS = 12


@dataclass
class Shop:
    """A stack that runs, and the first products of the sample catalogue as a file of their own."""

    stack: Stack
    products: Path
    photo: Path
    """A picture of the first product, as it is in the collection."""

    def python(self, example, *arguments, env=None):
        """Runs an example with this interpreter; returns its lines."""
        done = subprocess.run(
            [sys.executable, EXAMPLES / "python" / f"{example}.py", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "clients"), **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory):
    data = tmp_path_factory.mktemp("shop")
    catalogue = EXAMPLES / "catalogue"
    with (catalogue / "products.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))[:PRODUCTS]
    products = data / "products.csv"
    with products.open("w", newline="") as sink:
        writer = csv.DictWriter(sink, rows[0])
        writer.writeheader()
        for row in rows:
            images = [str(catalogue / name) for name in row["images"].split(";")]
            writer.writerow({**row, "images": ";".join(images)})
    model = build_tiny(data / "model")
    stack = Stack(data / "stack", shards=2, ports=Ports.free(2), model_dir=model, environment=STEADY)
    async with stack.supervisor:
        await stack.start()
        ready = Shop(stack, products, catalogue / rows[0]["images"].split(";")[0])
        ingested = await asyncio.to_thread(
            ready.python, "ingest", stack.embedder, "shop", products, data / "products.failed.csv"
        )
        pictures = sum(len(row["images"].split(";")) for row in rows)
        assert ingested == [f"{pictures} images stored, 0 failed"]
        yield ready
