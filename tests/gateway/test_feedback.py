"""What shoppers did: durable when acked, without a trace of who or what they searched by, gone when its time is up."""

import asyncio
import json
import sqlite3
import stat

import pytest

from services.gateway.feedback.pseudonyms import Pseudonyms
from services.gateway.feedback.recorder import FeedbackRecorder
from services.gateway.feedback.store import FeedbackStore
from services.local.stack import ROOT
from tests.cli.conftest import Shell
from vitrine import AsyncVitrine
from vitrine.errors import InvalidArgumentError, NotFoundError, OverloadedError, PreconditionError, UnavailableError
from vitrine.search.observing import Answered
from vitrine.v1 import search_pb2

CATALOGUE = ROOT / "examples" / "catalogue" / "products.csv"
PHOTO = ROOT / "examples" / "catalogue" / "queries" / "S0044_v0.jpg"
CLICK = search_pb2.FEEDBACK_ACTION_CLICK
DAY = 86_400.0


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


def answered(query_id="q1", user_key="ann@example.com", product_ids=("p1", "p2")):
    return Answered(query_id, "shop", "image", product_ids, user_key)


def feedback(query_id="q1", product_id="p2", action=CLICK):
    return search_pb2.RecordFeedbackRequest(query_id=query_id, product_id=product_id, action=action)


@pytest.fixture
async def recorder(tmp_path):
    store = FeedbackStore(tmp_path / "feedback.sqlite", 365_000 * DAY)
    under_test = FeedbackRecorder(store, Pseudonyms(b"k" * 32), 100)
    yield under_test
    await under_test.close()


async def everything(recorder):
    return [record async for page in recorder.pages(search_pb2.ExportFeedbackRequest()) for record in page]


async def test_events_find_their_answer_and_their_rank(recorder):
    recorder.shown(answered())
    await recorder.record(feedback())
    await recorder.record(feedback(product_id="never shown", action=search_pb2.FEEDBACK_ACTION_BUY))
    (record,) = await everything(recorder)
    assert (record.kind, list(record.product_ids)) == ("image", ["p1", "p2"])
    assert [(event.product_id, event.action, event.rank) for event in record.events] == [
        ("p2", CLICK, 2),
        ("never shown", search_pb2.FEEDBACK_ACTION_BUY, 0),
    ]


async def test_users_are_told_apart_but_not_known(recorder, tmp_path):
    for number, user in enumerate(["ann@example.com", "ann@example.com", "bob@example.com", ""]):
        recorder.shown(answered(f"q{number}", user))
    await recorder.record(feedback("q0"))
    first, second, third, nobody = (record.user_hash for record in await everything(recorder))
    assert first == second != third
    assert not nobody
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"example.com" not in stored


async def test_answers_go_to_disk_together_and_no_later_than_what_was_done_with_them(tmp_path):
    """A commit for each answer would cost the searches more than all else that the gateway does."""

    class Counting(FeedbackStore):
        writes = 0

        def write(self, items):
            self.writes += 1
            return super().write(items)

    store = Counting(tmp_path / "feedback.sqlite", 365_000 * DAY)
    recorder = FeedbackRecorder(store, Pseudonyms(b"k" * 32), 1_000)
    for number in range(200):
        recorder.shown(answered(f"q{number}"))
        await asyncio.sleep(0.001)
    await recorder.record(feedback("q199"))
    records = await everything(recorder)
    assert len(records) == 200
    assert sum(len(record.events) for record in records) == 1
    assert store.writes < 50
    recorder.shown(answered("nothing is done with it"))
    while len(await everything(recorder)) < 201:
        await asyncio.sleep(0.01)
    await recorder.close()


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (feedback(query_id=""), "query_id has 0 bytes, must have 1 to 64"),
        (feedback(query_id="q" * 65), "query_id has 65 bytes"),
        (feedback(product_id=""), "product_id has 0 bytes"),
        (feedback(action=0), "action is 0, must be one of FEEDBACK_ACTION_VIEW"),
        (feedback(action=99), "action is 99"),
    ],
)
async def test_what_is_wrong_is_named(recorder, request_, told):
    with pytest.raises(InvalidArgumentError, match=told):
        await recorder.record(request_)


async def test_feedback_to_an_answer_that_nobody_gave_is_refused_and_its_neighbours_are_kept(recorder):
    recorder.shown(answered())
    fine, wrong = await asyncio.gather(
        recorder.record(feedback()), recorder.record(feedback("q9")), return_exceptions=True
    )
    assert fine is None
    assert isinstance(wrong, NotFoundError)
    assert len((await everything(recorder))[0].events) == 1


async def test_a_full_queue_drops_answers_and_refuses_feedback_with_advice(tmp_path):
    store = FeedbackStore(tmp_path / "feedback.sqlite", 365_000 * DAY)
    blocker = sqlite3.connect(tmp_path / "feedback.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # the disk is busy: the writer waits
    recorder = FeedbackRecorder(store, Pseudonyms(b"k" * 32), 1)
    recorder.shown(answered("q0"))
    while recorder._waiting:
        await asyncio.sleep(0.01)
    recorder.shown(answered("q1"))
    recorder.shown(answered("dropped"))
    with pytest.raises(OverloadedError, match="feedback_queue: 1 records wait") as caught:
        await recorder.record(feedback("q1"))
    assert caught.value.retry_after
    blocker.execute("ROLLBACK")
    blocker.close()
    await recorder.close()
    store = FeedbackStore(tmp_path / "feedback.sqlite", 365_000 * DAY)
    assert sorted(record.query_id for page in store.pages("", 0) for record in page) == ["q0", "q1"]
    store.close()


async def test_a_disk_that_refuses_fails_feedback_and_nothing_else(tmp_path):
    store = FeedbackStore(tmp_path / "feedback.sqlite", 365_000 * DAY)
    recorder = FeedbackRecorder(store, Pseudonyms(b"k" * 32), 10)
    recorder.shown(answered())
    await recorder.record(feedback())
    store._sql.execute("PRAGMA query_only = ON")
    with pytest.raises(UnavailableError, match="the disk refuses"):
        await recorder.record(feedback())
    store._sql.execute("PRAGMA query_only = OFF")
    await recorder.record(feedback())
    assert len((await everything(recorder))[0].events) == 2
    await recorder.close()


async def test_what_is_too_old_is_not_shown_and_goes(tmp_path):
    clock = Clock()
    path = tmp_path / "feedback.sqlite"
    store = FeedbackStore(path, 10 * DAY, clock)
    recorder_clock = int(clock.now * 1_000)
    sql = sqlite3.connect(path)
    for number, age in enumerate((11, 9)):
        row = (f"q{number}", "shop", "image", recorder_clock - int(age * DAY * 1_000), '["p1"]', "")
        sql.execute("INSERT INTO queries VALUES (?, ?, ?, ?, ?, ?)", row)
        sql.execute("INSERT INTO events VALUES (?, 'p1', 2, 0, 1)", (f"q{number}",))
    sql.commit()
    assert [record.query_id for page in store.pages("", 0) for record in page] == ["q1"]
    assert store.expire() == 1
    assert store.expire() == 0
    assert sql.execute("SELECT query_id FROM events").fetchall() == [("q1",)]
    assert store.count() == 1
    store.close()


def test_the_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "feedback.key"
    first = Pseudonyms.from_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Pseudonyms.from_file(path).of("ann") == first.of("ann") != Pseudonyms(b"x" * 32).of("ann")
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes"):
        Pseudonyms.from_file(path)


async def test_from_search_to_report_over_a_kill(make_stack):
    """Acked feedback survives SIGKILL; the report says what was of use."""
    stack = make_stack(shards=1)
    async with stack.supervisor:
        await stack.start()
        shell = Shell(stack)
        assert (await shell.run("ingest", CATALOGUE, "--collection", "shop")).status == 0
        async with AsyncVitrine(stack.gateway) as client:
            answer = await client.search("shop", image=PHOTO.read_bytes(), k=3, user_key="ann@example.com")
            await client.record_feedback(answer.query_id, answer.products[1].product_id, "click")
            with pytest.raises(NotFoundError, match="is unknown, or has expired"):
                await client.record_feedback("f" * 32, "S0044", "click")
            with pytest.raises(InvalidArgumentError, match="must be one of view, click"):
                await client.record_feedback(answer.query_id, "S0044", "steal")
        await stack.supervisor.kill("gateway")
        await stack.supervisor.restart("gateway")
        async with AsyncVitrine(stack.gateway) as client:
            (record,) = [each async for each in client.feedback()]
        assert record.product_ids == tuple(product.product_id for product in answer.products)
        assert [(event.action, event.rank) for event in record.events] == [("click", 2)]
        figures = json.loads((await shell.run("feedback", "report", "--json")).out)
        assert figures["image"]["ctr"] == 1.0
        assert figures["image"]["mrr"] == 0.5
        target = stack.data / "feedback.jsonl"
        assert (await shell.run("feedback", "export", target)).status == 0
        assert (await shell.run("feedback", "export", target)).refused("exists already")
        assert json.loads(target.read_text())["query_id"] == answer.query_id
        assert b"example.com" not in target.read_bytes()


async def test_a_client_that_is_its_own_gateway_keeps_none():
    async with AsyncVitrine.direct("127.0.0.1:1", ["127.0.0.1:1"]) as client:
        with pytest.raises(PreconditionError, match="only a gateway keeps feedback"):
            await client.record_feedback("q", "p", "click")
