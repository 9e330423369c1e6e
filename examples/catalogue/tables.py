"""Writes the catalogue's tables: products, queries, and who made the models."""

import csv
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.catalogue.angles import GALLERY
from examples.catalogue.library import Model, licence_source

LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class Product:
    """A model that is for sale under `product_id`."""

    product_id: str
    model: Model

    @property
    def images(self) -> list[str]:
        """Paths of its pictures, from the catalogue's folder."""
        return [f"gallery/{self.product_id}_{number}.jpg" for number in range(len(GALLERY))]


@dataclass(frozen=True)
class Query:
    """A photo of a product that is not among its pictures; `kind` is `view` or `hard`."""

    image: str
    product: Product
    kind: str


def seeded(name: str) -> np.random.Generator:
    """A random generator that only the name decides."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def write_products(path: Path, products: Iterable[Product]) -> None:
    """Writes `products.csv`. Prices and stock are made up from the model's name and size; all else is the library's."""
    header = [
        "product_id",
        "title",
        "category",
        "brand",
        "price",
        "in_stock",
        "width_cm",
        "depth_cm",
        "height_cm",
        "licence",
        "images",
    ]
    rows = []
    for product in products:
        model = product.model
        price, in_stock = _offer(model)
        sizes = [f"{side:g}" for side in (model.width, model.depth, model.height)]
        head = [product.product_id, model.name, model.category, model.creator, price, in_stock]
        rows.append([*head, *sizes, LICENCE, ";".join(product.images)])
    _write(path, header, rows)


def write_queries(path: Path, queries: Iterable[Query]) -> None:
    """Writes `queries.csv`."""
    rows = [[query.image, query.product.product_id, query.product.model.category, query.kind] for query in queries]
    _write(path, ["image", "product_id", "category", "kind"], rows)


def write_credits(path: Path, library: Path, products: Iterable[Product], clutter: Iterable[Model]) -> None:
    """Writes who made each model used, for a product or (without an id) as clutter in a photo."""
    used = [(product.product_id, product.model) for product in products] + [("", model) for model in clutter]
    rows = [[number, model.key, model.name, model.creator, licence_source(library, model)] for number, model in used]
    _write(path, ["product_id", "model", "title", "creator", "source"], rows)


def _offer(model: Model) -> tuple[str, int]:
    """A price that grows with size, ending in .99, and nine in ten in stock."""
    rng = seeded(f"{model.key}/offer")
    price = 3 + (model.longest / 10) ** 1.7 * rng.uniform(0.8, 2.5)
    return f"{int(price)}.99", int(rng.random() < 0.9)


def _write(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
