"""The gateway's HTTP port under the same rules: TLS, tokens, scopes, collections."""

import json
import ssl
import urllib.error
import urllib.request

import pytest

from services.gateway.http.operations import OPERATIONS
from services.runtime.permissions import RULES
from tests.security.pictures import jpeg
from tests.security.secured import COLLECTION, token

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ask(shop):
    """Sends one request; returns status and body."""
    context = ssl.create_default_context(cafile=shop.authority.file)

    def send(path, body=None, *, name=None, headers=None, scheme="https"):
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{shop.stack.ports.http}{path}", body, headers or {})
        if name:
            request.add_header("Authorization", f"Bearer {token(name)}")
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return send


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=frontier"}


def form(**fields):
    parts = [
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    photo = b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + jpeg(3) + b"\r\n"
    return "".join(parts).encode() + photo + b"--frontier--\r\n"


def requests(collection=COLLECTION):
    """One good request for every operation."""
    search = {"collection": collection, "query": [{"stored": {"product_id": "P1"}}]}
    feedback = {"query_id": "0" * 32, "product_id": "P1", "action": "click"}
    return {
        "search": ("/v1/search", json.dumps(search).encode(), JSON),
        "similar": (f"/v1/similar/P1?collection={collection}", None, None),
        "recognize": ("/v1/recognize", form(collection=collection), FORM),
        "feedback": ("/v1/feedback", json.dumps(feedback).encode(), JSON),
        "status": ("/v1/status", None, None),
        "product": (f"/v1/products/{collection}/P1", None, None),
        "picture": (f"/v1/images/{collection}/P1/0", None, None),
    }


NAMES = [each.name for each in OPERATIONS]
SCOPES = {each.name: RULES[each.rpc].scope for each in OPERATIONS}
REFUSED = (401, 403)


async def test_every_operation_is_here():
    assert set(requests()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_every_operation_asks_who_is_calling_and_what_they_may(ask, name):
    path, body, headers = requests()[name]
    for who, told in (
        (None, "no token: send `authorization: Bearer TOKEN`"),
        ("nobody", "this token is not known here"),
        ("old", "the token of old expired at 2020-01-01 00:00Z"),
    ):
        status, problem = ask(path, body, name=who, headers=headers)
        assert (status, problem["code"], problem["detail"]) == (401, "UNAUTHENTICATED", told)
    scope = SCOPES[name]
    for who, may in (("reader", "read"), ("writer", "write"), ("admin", "admin")):
        status, problem = ask(path, body, name=who, headers=headers)
        if may == scope:
            assert status not in REFUSED, problem
        else:
            assert (status, problem["code"]) == (403, "PERMISSION_DENIED")
            assert f"needs the scope {scope}; {who} has {may}" in problem["detail"]


@pytest.mark.parametrize("name", ["search", "similar", "recognize", "product", "picture"])
async def test_another_collection_is_refused(ask, name):
    path, body, headers = requests()[name]
    status, problem = ask(path, body, name="elsewhere", headers=headers)
    assert (status, problem["code"]) == (403, "PERMISSION_DENIED")
    assert problem["detail"] == "collection 'shop' is not among those of elsewhere: elsewhere"


async def test_nobody_learns_the_names_of_others_collections(ask):
    status, problem = ask("/v1/similar/P1", name="elsewhere")
    assert (status, problem["detail"]) == (400, "collection is missing: name one of yours")
    assert ask("/v1/status", name="elsewhere")[1]["collections"] == []
    assert [each["name"] for each in ask("/v1/status", name="reader")[1]["collections"]] == [COLLECTION]


async def test_a_known_caller_searches(ask):
    status, answer = ask(*requests()["search"][:2], headers=JSON, name="reader")
    assert (status, len(answer["results"]) > 0) == (200, True)
    status, answer = ask("/v1/search", form(collection=COLLECTION), headers=FORM, name="reader")
    assert (status, answer["results"][0]["product_id"]) == (200, "P3")


async def test_what_is_open_to_all_tells_nothing(ask):
    assert ask("/healthz") == (200, {"status": "serving"})
    assert ask("/openapi.json")[0] == 200


async def test_two_tokens_or_none_that_is_one(ask):
    for given in ("Basic dXNlcjpwYXNz", "Bearer", "Bearer " + "x" * 600):
        status, problem = ask("/v1/status", headers={"Authorization": given})
        assert (status, problem["detail"]) == (401, "authorization must be `Bearer TOKEN`, once")


async def test_plain_http_gets_no_answer(ask):
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        ask("/healthz", scheme="http")


async def test_bodies_over_the_limit_and_nonsense(ask):
    status, _ = ask("/v1/search", bytes(33 * 2**20), headers=FORM, name="reader")
    assert status == 413
    status, _ = ask("/v1/search", b"\xff" * 64, headers=JSON, name="reader")
    assert status == 400
    for deep in ("[" * 100_000, '{"x":' * 100_000, "[" * 900 + "]" * 900):
        assert ask("/v1/search", deep.encode(), headers=JSON, name="reader")[0] == 400
        for field in ("box", "request"):
            assert ask("/v1/search", form(**{field: deep}), headers=FORM, name="reader")[0] == 400
