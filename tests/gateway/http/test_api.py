"""The HTTP API against a real stack: what it answers, and what it refuses and how."""

import json
from collections import Counter
from urllib.parse import quote

import pytest
import requests

from services.gateway.http.openapi import build_document
from tests.gateway.http.conftest import COLLECTION, PHOTO, PRODUCT, ingest, lone_gateway, problem, vitrine


@pytest.fixture
def photo():
    return PHOTO.read_bytes()


def test_a_photo_finds_its_product_with_everything_an_answer_is_worth(site, photo):
    answer = site.search(photo, k=5)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    best = found["results"][0]
    assert (best["rank"], best["product_id"]) == (1, PRODUCT)
    assert best["attributes"]["title"] == "Deck chair"
    assert best["attributes"]["price"] == 150.99
    assert best["image_url"] == f"/v1/images/{COLLECTION}/{PRODUCT}/{best['image_id']}"
    assert [each["rank"] for each in found["results"]] == [1, 2, 3, 4, 5]
    assert found["coverage"]["shards_answered"] == found["coverage"]["shards_total"] == 2
    assert found["coverage"]["points"] == 348
    assert found["degraded"] == []
    assert {"embed", "index"} <= {each["stage"] for each in found["timings"]}
    assert found["query_id"]
    assert found["collection"] == COLLECTION


def test_one_request_three_ways(site, photo):
    """As form fields, as a JSON field beside the file, and by a part that names the file: the same products."""
    asked = {"collection": COLLECTION, "k": 4, "filter_text": "price < 100"}
    box = {"x": 0.125, "y": 0.25, "width": 0.5, "height": 0.5}
    part = {"image": "shot", "box": box}
    answers = [
        site.search(photo, box=json.dumps(box), **asked),
        site.post(
            "/v1/search",
            files={"shot": ("a.jpg", photo), "request": (None, json.dumps({**asked, "query": [part]}))},
        ),
        site.post(
            "/v1/search",
            files={"request": (None, json.dumps({**asked, "query": [part]}), "application/json"), "shot": photo},
        ),
    ]
    ranked = [[(each["product_id"], each["score"]) for each in answer.json()["results"]] for answer in answers]
    assert ranked[0] == ranked[1] == ranked[2]
    assert len(ranked[0]) == 4
    assert all(each["attributes"]["price"] < 100 for each in answers[0].json()["results"])
    whole = site.search(photo, **asked).json()["results"]
    assert [each["score"] for each in whole] != [score for _, score in ranked[0]]


def test_stored_products_and_vectors_by_json(site):
    body = {"query": [{"stored": {"product_id": PRODUCT}}], "k": 3}
    by_json = site.post("/v1/search", json=body).json()
    by_path = site.get(f"/v1/similar/{PRODUCT}", params={"k": 3}).json()
    named = [each["product_id"] for each in by_json["results"]]
    assert named == [each["product_id"] for each in by_path["results"]]
    assert len(named) == 3
    assert PRODUCT not in named
    vector = {"values": [1.0] + [0.0] * (len_of_vectors(site) - 1), "fingerprint": by_json["fingerprint"]}
    assert len(site.post("/v1/search", json={"query": [{"vector": vector}], "k": 3}).json()["results"]) == 3
    other = {"values": vector["values"], "fingerprint": "0" * 64}
    problem(site.post("/v1/search", json={"query": [{"vector": other}]}), 409, "FAILED_PRECONDITION")


def len_of_vectors(site):
    (collection,) = site.get("/v1/status").json()["collections"]
    return collection["dim"]


def test_feedback_is_kept_with_the_search_it_belongs_to(site, photo):
    found = site.search(photo, k=3, user_key="somebody").json()
    seen = {"query_id": found["query_id"], "product_id": found["results"][1]["product_id"], "action": "add_to_cart"}
    answer = site.post("/v1/feedback", json=seen)
    assert (answer.status_code, answer.content) == (204, b"")
    (record,) = (each for each in site.kept_feedback() if each.query_id == found["query_id"])
    assert list(record.product_ids) == [each["product_id"] for each in found["results"]]
    assert [(each.product_id, each.rank) for each in record.events] == [(seen["product_id"], 2)]
    problem(site.post("/v1/feedback", json={**seen, "query_id": "of nobody"}), 404, "NOT_FOUND")
    refused = problem(site.post("/v1/feedback", json={**seen, "action": "steal"}), 400, "INVALID_ARGUMENT")
    assert refused["violations"][0]["field"] == "action"


def test_a_stored_product_is_read(site):
    product = site.get(f"/v1/products/{COLLECTION}/{PRODUCT}").json()
    assert product["product_id"] == PRODUCT
    assert [each["image_id"] for each in product["images"]] == [f"{PRODUCT}_{view}" for view in range(3)]
    for image in product["images"]:
        assert image["attributes"]["title"] == "Deck chair"
        assert site.get(image["image_url"]).headers["content-type"] == "image/jpeg"
    problem(site.get(f"/v1/products/{COLLECTION}/nothing"), 404, "NOT_FOUND")
    problem(site.get(f"/v1/products/{PRODUCT}"), 404, "NOT_FOUND")
    problem(site.get(f"/v1/products/{COLLECTION}/{PRODUCT}?k=1"), 400, "INVALID_ARGUMENT")


def test_status_and_health(site):
    status = site.get("/v1/status").json()
    assert [each["component"] for each in status["components"]] == ["embedder", "shard 0", "shard 1"]
    assert all(each["healthy"] for each in status["components"])
    assert [(each["name"], each["products"]) for each in status["collections"]] == [(COLLECTION, 116)]
    assert "127.0.0.1" not in json.dumps(status)
    health = site.get("/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "serving"})


REFUSED = [
    ({"k": "many"}, "k", "integer"),
    ({"k": 1001}, "k", "1000"),
    ({"box": '{"x": 0, "y": 0, "width": 2, "height": 1}'}, "box.width", "less than or equal to 1"),
    ({"box": "0,0,1,1"}, "box", ""),
    ({"min_score": "NaN"}, "min_score", "finite"),
    ({"filter_text": "price <"}, "filter_text", "character 8: expected a number"),
    ({"facets": "x" * 129}, "facets[0]", "128 characters"),
    ({"text": "x" * 1025}, "text", "1024 characters"),
    ({"colour": "red"}, "colour", "not permitted"),
    ({"timeout_ms": 0}, "timeout_ms", "greater than or equal to 1"),
    ({"page_token": "!"}, "page_token", "damaged"),
    ({"request": "{}", "k": 3}, "request", "stands for all other fields"),
    ({"request": '{"query": [{"image": "nowhere"}]}'}, "query[0].image", "no file 'nowhere'"),
    ({"request": '{"query": [{"weight": 1}]}'}, "query[0]", "exactly one of"),
    ({"request": '{"k": "3"}'}, "k", "integer"),
    ({"request": "{"}, "body", "Invalid JSON"),
]


@pytest.mark.parametrize(("fields", "named", "told"), REFUSED, ids=[str(each[0])[:40] for each in REFUSED])
def test_a_wrong_field_is_named(site, photo, fields, named, told):
    refusal = problem(site.search(photo, **fields), 400, "INVALID_ARGUMENT")
    assert refusal["violations"][0]["field"] == named
    assert told in refusal["violations"][0]["description"]


def test_refusals_have_the_status_of_their_error(site, photo):
    problem(site.get("/v1/similar/nothing"), 404, "NOT_FOUND")
    problem(site.search(photo, collection="nowhere"), 404, "NOT_FOUND")
    problem(site.search(b"no picture"), 400, "INVALID_ARGUMENT")
    problem(site.search(*[photo] * 9), 400, "INVALID_ARGUMENT")
    problem(site.post("/v1/search", data="k=1", headers={"content-type": "text/plain"}), 415, "INVALID_ARGUMENT")
    problem(site.post("/v1/feedback", files={"query_id": (None, "x")}), 415, "INVALID_ARGUMENT")
    problem(site.post("/v1/search", data=b'{"k": 1}' + b" " * 2**20, headers=JSON), 413, "RESOURCE_EXHAUSTED")
    problem(site.post("/v1/search", data=b'{"query": [{"text": "\\ud800"}]}', headers=JSON), 400, "INVALID_ARGUMENT")
    problem(site.get("/v2/search"), 404, "NOT_FOUND")
    refused = requests.put(site.address + "/v1/search", timeout=10)
    assert problem(refused, 405, "UNIMPLEMENTED")
    assert refused.headers["allow"] == "POST"
    form = {"content-type": "multipart/form-data; boundary=x"}
    for broken in (
        b"",
        b"--x",
        b"--x\r\n\r\n\r\n--x--",
        b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--\r\n",
    ):
        problem(site.post("/v1/search", data=broken, headers=form), 400, "INVALID_ARGUMENT")
    problem(site.post("/v1/search", data=b"", headers={"content-type": "multipart/form-data"}), 400, "INVALID_ARGUMENT")


JSON = {"content-type": "application/json"}


def test_ids_of_any_kind_survive_the_path(site):
    for odd in ("a/b", "a%2Fb", "..", "ä ö", "?x#y", "\N{SNOWMAN}", "a" * 256):
        asked = requests.Request("GET", site.address).prepare()
        asked.url = f"{site.address}/v1/similar/{quote(odd, safe='').replace('.', '%2E')}"
        told = problem(site.session.send(asked, timeout=30), 404, "NOT_FOUND")
        assert repr(odd) in told["detail"]


def test_headers(site):
    answer = site.get("/v1/status", headers={"x-request-id": "mine-1", "x-vitrine-client": "shop/app"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "set-cookie" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    assert len(site.get("/v1/status", headers={"x-request-id": "not one\tof ours"}).headers["x-request-id"]) == 32
    told = problem(site.get("/v1/status", headers={"x-vitrine-client": "no name!"}), 400, "INVALID_ARGUMENT")
    assert told["violations"][0]["field"] == "x-vitrine-client"
    told = problem(site.get("/v1/status", headers={"x-timeout-ms": "soon"}), 400, "INVALID_ARGUMENT")
    assert told["violations"][0]["field"] == "x-timeout-ms"
    foreign = site.search(PHOTO.read_bytes(), headers={"sec-fetch-site": "cross-site"})
    problem(foreign, 403, "PERMISSION_DENIED")


def test_the_page_comes_with_its_policy_and_a_visit_later_keeps_it(site):
    page = site.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'; style-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    again = site.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, "content-security-policy" in again.headers) == (304, False)
    for kind, name in (("text/css", "style.css"), ("text/javascript", "app.js"), ("image/svg+xml", "icon.svg")):
        file = site.get(f"/static/{name}")
        assert file.headers["content-type"].startswith(kind)
        plain = site.get(f"/static/{name}", headers={"accept-encoding": "identity"})
        assert plain.content == file.content
        assert "content-encoding" not in plain.headers
    for missing in ("/static/nothing.js", "/static/..%2fpage.py", "/static/"):
        problem(site.get(missing), 404, "NOT_FOUND")


def test_the_description_is_of_what_is_served(site):
    document = site.get("/openapi.json").json()
    assert document == build_document()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {
        "/v1/search",
        "/v1/similar/{product_id}",
        "/v1/recognize",
        "/v1/feedback",
        "/v1/status",
        "/v1/products/{collection}/{product_id}",
        "/v1/images/{collection}/{product_id}/{image_id}",
        "/healthz",
    }
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert max(Counter(names).values()) == 1


def test_a_request_that_names_no_collection_means_the_only_one(stack, tmp_path):
    (tmp_path / "products.csv").write_text(f"product_id,images\nP1,{PHOTO}\n")
    ingest(stack, tmp_path / "products.csv", "another")
    try:
        where = {"EMBEDDER": stack.embedder, "INDEXERS": ",".join(stack.indexers)}
        with lone_gateway(tmp_path, **where) as fresh:
            told = problem(fresh.search(PHOTO.read_bytes()), 400, "INVALID_ARGUMENT")
            assert told["violations"] == [
                {"field": "collection", "description": f"collection is missing: name one of another, {COLLECTION}"}
            ]
            found = fresh.search(PHOTO.read_bytes(), collection="another").json()["results"]
            assert [(each["product_id"], each["image_url"]) for each in found] == [("P1", None)]
    finally:
        vitrine(stack, "collections", "drop", "another", "--yes")
