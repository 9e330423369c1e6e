"""Query sets."""

import pytest

from vitrine.catalogue import CatalogueError, QueryPhoto, read_queries


def test_reading(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("image,product_id,category,kind\nq/1.jpg,A,Office,view\nq/2.jpg,B,Office,\n")
    assert read_queries(path) == [
        QueryPhoto(2, tmp_path / "q" / "1.jpg", "A", "view"),
        QueryPhoto(3, tmp_path / "q" / "2.jpg", "B", "all"),
    ]


def test_kinds_are_optional(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("product_id,image\nA,1.jpg\n")
    assert [query.kind for query in read_queries(path)] == ["all"]


def test_a_row_that_is_not_utf8_names_its_field(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_bytes(b"image,product_id\n1.jpg,A\ncaf\xe9.jpg,B\n")
    with pytest.raises(CatalogueError, match="row 3: image: not UTF-8"):
        read_queries(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,kind\n1.jpg,view\n", "no column 'product_id'"),
        ("image,product_id\n", "has no query"),
        ("image,product_id\n1.jpg,A\n,B\n", "row 3: image is empty"),
        ("image,product_id\n1.jpg,\n", "row 2: product_id is empty"),
        ("image,product_id\n1.jpg,A,more\n", "row 2: the row has 3 fields, the header has 2"),
    ],
)
def test_a_yardstick_with_a_bad_row_is_refused(tmp_path, content, message):
    path = tmp_path / "queries.csv"
    path.write_text(content)
    with pytest.raises(CatalogueError, match=message):
        read_queries(path)
