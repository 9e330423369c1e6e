"""Product pictures: which files are served, which never are, and how they are kept."""

import io
import os
import threading

import pytest
from PIL import Image
from starlette.requests import Request

from services.gateway.http.paths import ids_of
from services.gateway.http.pictures.address import PICTURES, file_path, picture_url
from services.gateway.http.pictures.serving import Pictures
from services.gateway.http.pictures.thumbnails import Picture, ThumbnailCache
from tests.embedder.pictures import bomb, encode, quadrants, smooth, with_alpha
from tests.gateway.http.conftest import COLLECTION, PRODUCT, problem
from vitrine.errors import NotFoundError
from vitrine.v1 import common_pb2, indexer_pb2

ADDRESS = f"/v1/images/{COLLECTION}/{PRODUCT}/{PRODUCT}_0"


def test_a_picture_is_served_as_it_is_and_smaller(site):
    whole = site.get(ADDRESS)
    assert whole.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(whole.content)).size == (320, 320)
    for asked, got in ((1, 96), (96, 96), (97, 160), (200, 320), (320, 320), (4096, 320)):
        smaller = site.get(f"{ADDRESS}?width={asked}")
        assert smaller.status_code == 200
        assert Image.open(io.BytesIO(smaller.content)).width == got, asked
    for wrong in ("0", "-1", "4097", "wide", "1.5"):
        problem(site.get(f"{ADDRESS}?width={wrong}"), 400, "INVALID_ARGUMENT")


def test_a_browser_that_has_it_is_told_so(site):
    first = site.get(f"{ADDRESS}?width=160")
    assert first.headers["cache-control"] == "private, max-age=300"
    again = site.get(f"{ADDRESS}?width=160", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = site.get(f"{ADDRESS}?width=96", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


def test_what_is_not_there_is_not_found(site):
    for path in (
        f"/v1/images/nowhere/{PRODUCT}/{PRODUCT}_0",
        f"/v1/images/{COLLECTION}/nothing/x",
        f"/v1/images/{COLLECTION}/{PRODUCT}/nothing",
        f"/v1/images/{COLLECTION}/{PRODUCT}",
        f"/v1/images/{COLLECTION}/{PRODUCT}/a/b",
        f"/v1/images/{COLLECTION}/..%2f..%2f{PRODUCT}/..%2f",
    ):
        problem(site.get(path), 404, "NOT_FOUND")


@pytest.fixture
def folder(tmp_path):
    """A root with a picture in it, and another picture outside of it."""
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for where in (root / "a.png", root / "deep" / "b c.png", tmp_path / "outside" / "secret.png"):
        smooth(200, 100).save(where)
    return root


async def served(root, uri, width=None, max_bytes=2**20, etag=""):
    pictures = Pictures([root], max_bytes)
    headers = [(b"if-none-match", etag.encode())]
    request = Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers})
    point = indexer_pb2.Point(key=common_pb2.PointKey(product_id="P", image_id="I"), image_uri=str(uri))
    try:
        return await pictures.answer(request, point, width)
    finally:
        pictures.close()


async def test_uris_of_every_spelling_find_their_file(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    for root in (folder, link):  # a root may be a link; what lies below may not
        for uri in (
            (folder / "a.png").as_uri(),
            folder / "a.png",
            "a.png",
            "deep/b c.png",
            (folder / "deep" / "b c.png").as_uri(),
            f"file://localhost{folder}/deep/b%20c.png",
        ):
            assert (await served(root, uri)).status_code == 200, uri
    assert (await served(link, link / "a.png")).status_code == 200


async def test_nothing_outside_the_root_is_served(folder, tmp_path):
    outside = tmp_path / "outside" / "secret.png"
    (folder / "file-link.png").symlink_to(outside)
    (folder / "folder-link").symlink_to(outside.parent)
    (folder / "inner-link.png").symlink_to(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    for uri in (
        outside,
        outside.as_uri(),
        f"{folder}/../outside/secret.png",
        f"file://{folder}/%2e%2e/outside/secret.png",
        "../outside/secret.png",
        "deep/../../outside/secret.png",
        "file-link.png",
        "inner-link.png",
        "folder-link/secret.png",
        "pipe.png",
        "deep",
        ".",
        "",
        "/",
        "a.png\0.jpg",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://elsewhere/a.png",
        "//elsewhere/a.png",
        "https://elsewhere/a.png",
        "http:a.png",
        "file://[broken/a.png",
        "missing.png",
        f"{folder}-more/a.png",
    ):
        with pytest.raises(NotFoundError, match="image_roots"):
            await served(folder, uri)


async def test_only_pictures_of_a_bounded_size_are_served(folder):
    (folder / "passwords.png").write_bytes(b"root:x:0:0")
    (folder / "page.png").write_bytes(b"<html><script>alert(1)</script>")
    (folder / "drawing.svg").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "empty.jpg").write_bytes(b"")
    for name in ("passwords.png", "page.png", "drawing.svg", "empty.jpg"):
        with pytest.raises(NotFoundError, match="no JPEG, PNG or WebP"):
            await served(folder, name)
    with pytest.raises(NotFoundError, match="image_max_bytes"):
        await served(folder, "a.png", max_bytes=100)
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "cut.jpg").write_bytes(encode(smooth(900, 900), "JPEG")[:2000])
    for name in ("bomb.png", "cut.jpg"):
        with pytest.raises(NotFoundError, match="is not served"):
            await served(folder, name, width=96)


async def test_copies_are_upright_white_behind_and_without_metadata(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: the camera's right is up
    exif[0x010F] = "a camera with a name"
    quadrants(400, 200).save(folder / "turned.jpg", exif=exif, quality=95)
    copy = Image.open(io.BytesIO((await served(folder, "turned.jpg", width=96)).body))
    assert copy.size == (96, 192)
    assert not copy.getexif()
    red, green, blue = copy.getpixel((85, 10))
    assert red > 200
    assert max(green, blue) < 60
    with_alpha(smooth(400, 400), 0).save(folder / "clear.png")
    clear = Image.open(io.BytesIO((await served(folder, "clear.png", width=96)).body))
    assert clear.getpixel((48, 48)) == (255, 255, 255)


async def test_a_changed_file_has_a_new_tag(folder):
    first = await served(folder, "a.png", width=96)
    tag = first.headers["etag"]
    assert (await served(folder, "a.png", width=96, etag=tag)).status_code == 304
    smooth(300, 150, seed=1).save(folder / "a.png")
    assert (await served(folder, "a.png", width=96, etag=tag)).status_code == 200


async def test_file_work_stays_off_the_event_loop(folder, monkeypatch):
    threads = set()
    opened = Image.open

    def watched(*arguments, **options):
        threads.add(threading.current_thread())
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", watched)
    await served(folder, "a.png", width=96)
    assert threads
    assert threading.current_thread() not in threads


def test_the_cache_keeps_what_was_used_last_within_its_bytes():
    cache = ThumbnailCache(10)
    for key in "abc":
        cache.put(key, Picture(b"1234", "image/jpeg"))
        cache.get("a")
    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]
    cache.put("large", Picture(b"x" * 11, "image/jpeg"))
    assert cache.get("large") is None


def test_addresses_there_and_back():
    for key in (("shop", "P1", "I1"), ("shop", "a/b", "ä ?#%"), ("shop", "..", "x" * 256)):
        url = picture_url(*key, "file:///somewhere.png")
        request = Request({"type": "http", "path": "", "raw_path": url.encode(), "headers": []})
        assert ids_of(request, PICTURES, 3) == list(key)
    assert picture_url("shop", "P", "I", "https://cdn/x.png") is None
    assert picture_url("shop", "P", "I", "") is None
    assert str(file_path("file:///a%20b.png")) == "/a b.png"
