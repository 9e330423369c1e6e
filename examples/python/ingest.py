"""Brings a collection up to date with a catalogue file. Usage: ingest.py EMBEDDER COLLECTION PRODUCTS.csv FAILED.csv"""

import asyncio
import sys
from pathlib import Path

from vitrine.catalogue import Catalogue
from vitrine.ingest import FailedRows, ingest

embedder, collection, products, failed = sys.argv[1:]
with FailedRows(Path(failed)) as failures:
    summary = asyncio.run(ingest(Catalogue(Path(products)), collection, embedder=embedder, failures=failures))
print(f"{summary.stored} images stored, {summary.failed} failed")
