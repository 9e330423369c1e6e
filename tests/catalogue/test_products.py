"""Catalogue files: what is read, and that every bad row is named while the rest goes on."""

import os

import pytest

from vitrine.catalogue import Catalogue, CatalogueError, ColumnType, Problem, ProductImage

HEADER = "product_id,title,price,in_stock,images"


@pytest.fixture
def write(tmp_path):
    """Writes a catalogue file whose pictures p1.jpg to p6.jpg exist; returns its path."""
    for number in range(1, 7):
        (tmp_path / f"p{number}.jpg").write_bytes(b"not looked at")

    def write_file(*lines, encoding="utf-8", end="\n"):
        path = tmp_path / "products.csv"
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return write_file


def read(path, **options):
    """Returns the images and the problems of a file."""
    everything = list(Catalogue(path, **options).read())
    images = [each for each in everything if isinstance(each, ProductImage)]
    problems = [each for each in everything if isinstance(each, Problem)]
    assert len(images) + len(problems) == len(everything)
    return images, problems


def test_rows_become_images_with_typed_attributes(write, tmp_path):
    path = write(HEADER, "A,Chair,9.5,1,p1.jpg;p2.jpg", 'B,"Table, ""big""",20,0, p3.jpg ;', "C,Lamp,,1,p4.jpg")
    images, problems = read(path)
    assert problems == []
    assert [(image.row, image.product_id, image.image_id) for image in images] == [
        (2, "A", "p1"),
        (2, "A", "p2"),
        (3, "B", "p3"),
        (4, "C", "p4"),
    ]
    assert images[0].attributes == {"title": "Chair", "price": 9.5, "in_stock": 1}
    assert images[2].attributes == {"title": 'Table, "big"', "price": 20.0, "in_stock": 0}
    assert images[3].attributes == {"title": "Lamp", "in_stock": 1}  # an empty field is no attribute
    assert images[0].path == tmp_path / "p1.jpg"
    assert images[0].uri == (tmp_path / "p1.jpg").as_uri()
    catalogue = Catalogue(path)
    assert (catalogue.products, catalogue.images) == (3, 4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_line_ends_and_blank_lines(write, encoding, end):
    path = write(HEADER, "A,Sófá,1.5,1,p1.jpg", "", "  ,,,,", "B,椅子,2,1,p2.jpg", encoding=encoding, end=end)
    images, problems = read(path)
    assert problems == []
    assert [(image.row, image.attributes["title"]) for image in images] == [(2, "Sófá"), (5, "椅子")]


def test_every_bad_row_is_named_and_the_rest_is_read(write, tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    path = write(
        HEADER,
        "A,ok,1.5,1,p1.jpg",
        "A,again,1.5,1,p2.jpg",
        ",no id,1.5,1,p2.jpg",
        "B,missing file,1.5,1,p2.jpg;gone.jpg",
        "C,no image,1.5,1,",
        "D,short row,1.5",
        "E,long row,1.5,1,p3.jpg,more",
        f"{'x' * 300},long id,1.5,1,p3.jpg",
        "F,a folder,1.5,1,folder.jpg",
        "G,twice,1.5,1,p4.jpg;p4.jpg",
        "H,ok too,1.5,1,p5.jpg",
    )
    images, problems = read(path)
    assert [image.product_id for image in images] == ["A", "B", "G", "H"]
    assert [(each.row, each.product_id, each.image, each.field) for each in problems] == [
        (3, "A", "", "product_id"),
        (4, "", "", "product_id"),
        (5, "B", "gone.jpg", "images"),
        (6, "C", "", "images"),
        (7, "D", "", ""),
        (8, "E", "", ""),
        (9, "x" * 300, "", "product_id"),
        (10, "F", "folder.jpg", "images"),
        (11, "G", "p4.jpg", "images"),
    ]
    reasons = [each.reason for each in problems]
    assert reasons[0] == "the same product_id as row 2, which is kept"
    assert reasons[1] == "empty"
    assert reasons[2] == f"No such file or directory: {tmp_path / 'gone.jpg'}"
    assert reasons[3] == "no image"
    assert reasons[4] == "the row has 3 fields, the header has 5"
    assert reasons[5] == "the row has 6 fields, the header has 5"
    assert reasons[6] == "product_id has 300 bytes, must have 1 to 256"
    assert reasons[7] == f"not a file: {tmp_path / 'folder.jpg'}"
    assert reasons[8] == "listed twice in this row"


def test_a_row_that_is_not_utf8_costs_only_itself(write):
    path = write(HEADER, "A,ok,1,1,p1.jpg", "B,ok,1,1,p2.jpg")
    path.write_bytes(path.read_bytes() + "C,caf\xe9,1,1,p3.jpg\n".encode("latin-1") + b"D,ok,1,1,p4.jpg\n")
    images, problems = read(path)
    assert [image.product_id for image in images] == ["A", "B", "D"]
    assert [(each.row, each.product_id, each.field) for each in problems] == [(4, "C", "title")]
    assert "UTF-8" in problems[0].reason


def test_a_file_name_with_a_nul_is_a_problem_not_a_crash(write):
    images, problems = read(write(HEADER, "A,ok,1,1,fol\0der/p1.jpg", "B,ok,1,1,p2.jpg"))
    assert [image.product_id for image in images] == ["B"]
    assert [(each.product_id, each.field) for each in problems] == [("A", "images")]


def test_a_declared_type_fails_the_rows_that_do_not_fit(write):
    path = write(HEADER, "A,ok,1.5,1,p1.jpg", "B,bad,on request,1,p2.jpg", "C,ok,2,1,p3.jpg")
    images, problems = read(path, types={"price": ColumnType.DOUBLE})
    assert [(image.product_id, image.attributes["price"]) for image in images] == [("A", 1.5), ("C", 2.0)]
    assert problems == [Problem(3, "B", "", "price", "'on request' is not a finite number")]


def test_a_declared_type_needs_its_column(write):
    with pytest.raises(CatalogueError, match="no attribute column 'prise'; there are title, price, in_stock"):
        Catalogue(write(HEADER, "A,ok,1,1,p1.jpg"), types={"prise": ColumnType.DOUBLE})


def test_a_declared_list_is_split_and_a_declared_string_is_not_a_number(write):
    path = write(HEADER, "A,red; blue ;,1,1,p1.jpg", "B,,2,1,p2.jpg", "C,green,3,1,p3.jpg")
    images, problems = read(path, types={"title": ColumnType.LIST, "price": ColumnType.STRING})
    assert problems == []
    assert [image.attributes for image in images] == [
        {"title": ["red", "blue"], "price": "1", "in_stock": 1},
        {"price": "2", "in_stock": 1},
        {"title": ["green"], "price": "3", "in_stock": 1},
    ]
    assert [(column.name, column.type.value) for column in Catalogue(path).columns] == [
        ("title", "string"),  # a list is never inferred
        ("price", "int64"),
        ("in_stock", "int64"),
    ]


def test_types_are_those_of_the_whole_column_bad_rows_aside(write):
    # One text far down makes every value text; the code with its zeros stays as it is; a row of the wrong length
    # says nothing about the columns.
    lines = [f"P{number},00{number},{number},true,p1.jpg" for number in range(8)]
    path = write(HEADER, *lines, "Q,0099,on request,false,p2.jpg", "R,word,word,word")
    images, problems = read(path)
    assert [(each.row, each.product_id) for each in problems] == [(11, "R")]
    assert images[0].attributes == {"title": "000", "price": "0", "in_stock": True}
    assert images[-1].attributes == {"title": "0099", "price": "on request", "in_stock": False}


def test_a_line_break_in_quotes_does_not_shift_the_row_numbers(write):
    path = write(HEADER, 'A,"two', 'lines",1,1,p1.jpg', "B,gone,1,1,gone.jpg")
    images, problems = read(path)
    assert [(image.row, image.attributes["title"]) for image in images] == [(2, "two\nlines")]
    assert [(each.row, each.product_id) for each in problems] == [(3, "B")]  # as a spreadsheet counts, not as an editor


def test_image_ids_are_short_unless_that_makes_them_equal(write, tmp_path):
    for folder in ("red", "blue"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(b"")
    images, problems = read(write(HEADER, "A,x,1,1,red/1.jpg;blue/1.jpg", "B,x,1,1,red/1.jpg"))
    assert problems == []
    assert [image.image_id for image in images] == ["red/1.jpg", "blue/1.jpg", "1"]


def test_versions_are_the_later_of_file_and_image_unless_given(write, tmp_path):
    path = write(HEADER, "A,x,1,1,p1.jpg;p2.jpg")
    os.utime(path, (1000, 1000))
    os.utime(tmp_path / "p1.jpg", (900, 900))
    os.utime(tmp_path / "p2.jpg", (1100, 1100))
    assert [image.version for image in read(path)[0]] == [1_000_000, 1_100_000]
    assert [image.version for image in read(path, version=7)[0]] == [7, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; its first line must name the columns"),
        (b"product_id,title\nA,x\n", "has no column 'images'; the columns are 'product_id', 'title'$"),
        (b"sku,images\nA,x.jpg\n", "has no column 'product_id'; the columns are 'sku', 'images'$"),
        (b"\nproduct_id,images\nA,x.jpg\n", "the first line is empty; it must name the columns"),
        (b"product_id;images\nA;x.jpg\n", "separated by ';'\\? Fields must be separated by commas"),
        (b"product_id\timages\nA\tx.jpg\n", r"separated by '\\t'\? Fields must be separated by commas"),
        (b"product_id|images\nA|x.jpg\n", r"separated by '\|'\? Fields must be separated by commas"),
        (b"product_id,images,title,title\n", "column 'title' is there twice"),
        (b"product_id,images,\n", "column 3 of 3 has no name"),
        (b"product_id,images,caf\xe9\n", "column 3 is not UTF-8"),
        (b"\xff\xfe" + "product_id,images\n".encode("utf-16-le"), "is UTF-16; save it as CSV in UTF-8"),
        (b"\xfe\xff" + "product_id,images\n".encode("utf-16-be"), "is UTF-16; save it as CSV in UTF-8"),
        (b"product_id,images\nA,1.jpg\nB," + b"x" * (2**20 + 1) + b"\n", r"row 3, .* field limit \(1048576\)"),
        (b'product_id,images\nA,1.jpg\nB,"2.jpg\nC,3.jpg\n', "row 3, which starts at line 3, is not CSV"),
        (b'product_id,images\nA,"1.jpg"x\n', "row 2, which starts at line 2, is not CSV"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path, content, message):
    path = tmp_path / "products.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match=message) as caught:
        Catalogue(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    with pytest.raises(CatalogueError, match="No such file"):
        Catalogue(tmp_path / "nowhere.csv")
    with pytest.raises(CatalogueError, match="Is a directory"):
        Catalogue(tmp_path)
