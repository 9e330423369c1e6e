"""The committed sample catalogue is complete, small, public domain and what its tables say."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CATALOGUE = Path(__file__).resolve().parents[2] / "examples" / "catalogue"
PRODUCT_COLUMNS = [
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
MAX_BYTES = 8_000_000


def rows(name: str) -> list[dict[str, str]]:
    with (CATALOGUE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def products() -> list[dict[str, str]]:
    return rows("products.csv")


@pytest.fixture(scope="module")
def queries() -> list[dict[str, str]]:
    return rows("queries.csv")


def gallery(product: dict[str, str]) -> list[str]:
    return product["images"].split(";")


def test_tables_have_the_agreed_columns(products: list[dict[str, str]], queries: list[dict[str, str]]) -> None:
    assert list(products[0]) == PRODUCT_COLUMNS
    assert list(queries[0]) == ["image", "product_id", "category", "kind"]


def test_products_are_distinct_and_public_domain(products: list[dict[str, str]]) -> None:
    assert 60 <= len(products) <= 150
    assert len({product["product_id"] for product in products}) == len(products)
    assert {product["licence"] for product in products} == {"CC0-1.0"}


def test_every_product_has_two_or_three_pictures_of_its_own(products: list[dict[str, str]]) -> None:
    assert all(2 <= len(gallery(product)) <= 3 for product in products)
    paths = [path for product in products for path in gallery(product)]
    contents = {hashlib.sha256((CATALOGUE / path).read_bytes()).digest() for path in paths}
    assert len(contents) == len(paths)


def test_attributes_are_usable(products: list[dict[str, str]]) -> None:
    for product in products:
        assert product["title"], product
        assert product["category"], product
        assert product["brand"], product
        assert float(product["price"]) > 0, product
        assert product["in_stock"] in ("0", "1"), product
        assert all(float(product[f"{side}_cm"]) > 0 for side in ("width", "depth", "height")), product
    assert {product["in_stock"] for product in products} == {"0", "1"}


def test_queries_ask_for_products_of_the_catalogue(
    products: list[dict[str, str]], queries: list[dict[str, str]]
) -> None:
    category = {product["product_id"]: product["category"] for product in products}
    assert all(category[query["product_id"]] == query["category"] for query in queries)
    asked = Counter(kind for kind, _ in {(query["kind"], query["product_id"]) for query in queries})
    assert set(asked) == {"view", "hard"}
    assert 15 <= asked["view"] <= 25
    assert 15 <= asked["hard"] <= 20


def test_no_query_photo_is_a_gallery_picture(products: list[dict[str, str]], queries: list[dict[str, str]]) -> None:
    def digest(path: str) -> str:
        return hashlib.sha256((CATALOGUE / path).read_bytes()).hexdigest()

    shown = {digest(path) for product in products for path in gallery(product)}
    assert not shown & {digest(query["image"]) for query in queries}


def test_pictures_and_tables_name_each_other(products: list[dict[str, str]], queries: list[dict[str, str]]) -> None:
    named = {path for product in products for path in gallery(product)} | {query["image"] for query in queries}
    there = {path.relative_to(CATALOGUE).as_posix() for path in CATALOGUE.rglob("*.jpg")}
    assert named == there


def test_pictures_decode_and_show_something(products: list[dict[str, str]], queries: list[dict[str, str]]) -> None:
    for path in [path for product in products for path in gallery(product)] + [query["image"] for query in queries]:
        with Image.open(CATALOGUE / path) as picture:
            assert picture.format == "JPEG", path
            assert picture.mode == "RGB", path
            assert max(picture.size) <= 480, path
            assert min(picture.size) >= 256, path
            greys = np.asarray(picture.convert("L"))
            assert int(greys.max()) - int(greys.min()) > 60, f"{path} is blank"


def test_gallery_products_are_centred_and_fill_the_frame(products: list[dict[str, str]]) -> None:
    for path in [path for product in products for path in gallery(product)]:
        with Image.open(CATALOGUE / path) as picture:
            dark = np.asarray(picture.convert("L")) < 200  # paler than this is shadow on the studio's floor
            down, across = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
        for side, extent in zip(dark.shape, (down, across), strict=True):
            assert 0 < extent[0] < extent[-1] < side - 1, f"{path} is cut off"
        assert max(np.ptp(down) / dark.shape[0], np.ptp(across) / dark.shape[1]) > 0.55, f"{path} is small"


def test_makers_of_all_products_are_credited(products: list[dict[str, str]]) -> None:
    makers = {row["product_id"]: row for row in rows("CREDITS.csv")}
    for product in products:
        assert makers[product["product_id"]]["creator"] == product["brand"]
        assert makers[product["product_id"]]["source"].startswith("http")


def test_the_licence_names_its_origin() -> None:
    text = (CATALOGUE / "LICENCE").read_text(encoding="utf-8")
    for words in ("CC0-1.0", "sweethome3d-furniture", "Emmanuel PUYBARET"):
        assert words in text


def test_the_catalogue_stays_small() -> None:
    size = sum(path.stat().st_size for path in CATALOGUE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert size <= MAX_BYTES
