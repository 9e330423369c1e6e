"""Page tokens: there and back, bound to their request, and useless for anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine.errors import InvalidArgumentError
from vitrine.search.paging import MAX_DEPTH, check_token, read_token, request_digest, write_token
from vitrine.v1 import common_pb2, filter_pb2, search_pb2

IDS = st.lists(st.text(min_size=1, max_size=8), max_size=20)
DIGEST = bytes(range(16))


@given(IDS, IDS)
def test_a_token_knows_what_all_pages_returned(first, second):
    if not first:
        return
    token = write_token(DIGEST, None, first)
    token = write_token(DIGEST, read_token(token), second)
    returned = read_token(token)
    assert all(each in returned for each in (*first, *second))
    assert len(returned) == len({*first, *second})
    assert "something else" not in returned
    check_token(returned, DIGEST)


def test_the_deepest_token_can_be_read_and_a_deeper_one_cannot():
    ids = [f"P{number}" for number in range(MAX_DEPTH + 1)]
    assert len(read_token(write_token(DIGEST, None, ids[:-1]))) == MAX_DEPTH
    with pytest.raises(InvalidArgumentError, match="page_token is no page token"):
        read_token(write_token(DIGEST, None, ids))


@given(st.binary(max_size=64).filter(lambda token: token[:1] != b"\1" or (len(token) - 17) % 8 or len(token) < 25))
def test_what_is_no_token_is_refused(token):
    with pytest.raises(InvalidArgumentError, match="page_token is no page token") as caught:
        read_token(token)
    assert caught.value.violations[0].field == "page_token"


def request(**fields):
    values = {
        "collection": "shop",
        "query": [search_pb2.QueryPart(image=b"picture"), search_pb2.QueryPart(text="sofa")],
        **fields,
    }
    return search_pb2.SearchRequest(**values)


def exists(name):
    return filter_pb2.Filter(exists=filter_pb2.Exists(attribute=name))


PLAIN = request_digest(request(), [b"h" * 32])

OTHERS = {
    "collection": request(collection="other"),
    "text": request(query=[search_pb2.QueryPart(image=b"picture"), search_pb2.QueryPart(text="table")]),
    "weight": request(query=[search_pb2.QueryPart(image=b"picture", weight=2), search_pb2.QueryPart(text="sofa")]),
    "crop": request(query=[search_pb2.QueryPart(image=b"picture", auto_crop=True), search_pb2.QueryPart(text="sofa")]),
    "box": request(
        query=[
            search_pb2.QueryPart(image=b"picture", box=common_pb2.Box(width=1, height=1)),
            search_pb2.QueryPart(text="sofa"),
        ]
    ),
    "order": request(query=[search_pb2.QueryPart(text="sofa"), search_pb2.QueryPart(image=b"picture")]),
    "kind": request(query=[search_pb2.QueryPart(image=b"picture"), search_pb2.QueryPart(stored=common_pb2.PointKey())]),
    "filter": request(filter=exists("a")),
    "filter_text": request(filter_text="price < 1"),
    "exclude": request(exclude_product_ids=["P1"]),
    "min_score": request(min_score=0.0),
    "ranking": request(ranking=search_pb2.Ranking(diversity=0.5)),
    "user": request(user_key="ann"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_request_has_another_digest(name):
    digest = request_digest(OTHERS[name], [b"h" * 32])
    assert digest != PLAIN
    with pytest.raises(InvalidArgumentError, match="page_token belongs to another request"):
        check_token(read_token(write_token(PLAIN, None, ["P1"])), digest)


def test_another_image_has_another_digest():
    assert request_digest(request(), [b"i" * 32]) != PLAIN


def test_how_much_is_asked_and_told_changes_no_digest():
    same = request(
        k=50,
        page_token=b"x",
        explain=True,
        with_images=True,
        top_tags=3,
        min_coverage=0.5,
        allow_partial=False,
        ef=100,
        exact=True,
        facets=["brand"],
        min_generations={0: 1},
    )
    assert request_digest(same, [b"h" * 32]) == PLAIN
