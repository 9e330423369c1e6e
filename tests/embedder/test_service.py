"""Embed, EmbedStream and GetModel over gRPC, with the tiny model."""

import asyncio
import hashlib
import threading

import grpc
import numpy as np
import pytest

from models.card import load_card
from services.embedder.pipeline import Caller, ImageFile
from services.embedder.priority import Priority
from services.embedder.session import Session
from tests.embedder import pictures
from tests.embedder.serving import eventually, serving
from vitrine.errors import (
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    from_rpc_error,
    from_status,
)
from vitrine.v1 import common_pb2, embedder_pb2
from vitrine.vectors import from_proto

PHOTO = pictures.encode(pictures.smooth(100, 80), "JPEG")
OTHER = pictures.encode(pictures.smooth(100, 80, seed=1), "PNG")


def images(*contents, **fields):
    return embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=each) for each in contents], **fields)


@pytest.fixture
def vector(tiny_model):
    card = load_card(tiny_model)
    return lambda result: from_proto(result.vector, dim=card.outputs.embedding.dim, fingerprint=card.fingerprint)


class SlowDevice:
    """Holds the device until released, so that a test decides what waits."""

    def __init__(self, monkeypatch):
        self.release = threading.Event()
        self.batches = []
        real = Session.run

        def run(session, pixels):
            self.batches.append(len(pixels))
            assert self.release.wait(60)
            return real(session, pixels)

        self.hold = lambda: monkeypatch.setattr(Session, "run", run)


@pytest.fixture
def device(monkeypatch):
    slow = SlowDevice(monkeypatch)
    yield slow
    slow.release.set()


async def test_an_image_becomes_a_vector_of_norm_1_with_hash_and_timings(tiny_model, vector):
    async with serving(tiny_model) as embedder:
        response = await embedder.stub.Embed(images(PHOTO))
        (result,) = response.results
        assert result.status.code == 0
        assert np.linalg.norm(vector(result)) == pytest.approx(1, abs=1e-5)
        assert result.content_hash == hashlib.sha256(PHOTO).digest()
        assert response.model == "tiny"
        assert [timing.stage for timing in response.timings] == ["decode", "queue", "model"]
        assert all(timing.seconds >= 0 for timing in response.timings)
        assert response.timings[0].seconds > 0
        assert not result.tags  # the tiny model has no classifier


async def test_bad_images_cost_themselves_only_and_keep_their_places(tiny_model, vector):
    box = common_pb2.Box(x=0.9, y=0, width=0.2, height=1)
    async with serving(tiny_model, max_image_bytes=100_000) as embedder:
        request = images(PHOTO, b"", b"some text", OTHER, pictures.bomb(), bytes(100_001), PHOTO[:-200], PHOTO)
        request.images.add(data=PHOTO, box=box)
        results = (await embedder.stub.Embed(request)).results
        codes = [result.status.code for result in results]
        invalid, exhausted = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert codes == [0, invalid, invalid, 0, invalid, exhausted, invalid, 0, invalid]
        for told, result in zip(
            (
                "is empty",
                "found text",
                "30000 x 30000: max_image_side is 16384",
                "100001 bytes, max_image_bytes is 100000",
                "no end marker",
                "x + width is 1.1",
            ),
            (result for result in results if result.status.code),
            strict=True,
        ):
            assert told in result.status.message
            assert from_status(result.status).violations[0].field.startswith("image.")
            assert not result.HasField("vector")
        np.testing.assert_array_equal(vector(results[0]), vector(results[7]))
        assert abs(vector(results[0]) @ vector(results[3])) < 0.9999
        assert embedder.held == 0


async def test_a_vector_does_not_depend_on_the_batch(tiny_model, vector):
    contents = [pictures.encode(pictures.smooth(70, 90, seed), "PNG") for seed in range(12)]
    async with serving(tiny_model) as embedder:
        together = (await embedder.stub.Embed(images(*contents))).results
        for content, result in zip(contents, together, strict=True):
            (alone,) = (await embedder.stub.Embed(images(content))).results
            np.testing.assert_allclose(vector(alone), vector(result), atol=1e-5)


async def test_a_box_embeds_that_part(tiny_model, vector):
    left = pictures.smooth(64, 64, seed=5)
    both = pictures.smooth(128, 64, seed=6)
    both.paste(left, (0, 0))
    async with serving(tiny_model) as embedder:
        request = images(pictures.encode(left, "PNG"), pictures.encode(both, "PNG"))
        request.images[1].box.CopyFrom(common_pb2.Box(x=0, y=0, width=0.5, height=1))
        alone, cropped = (vector(result) for result in (await embedder.stub.Embed(request)).results)
        np.testing.assert_allclose(alone, cropped, atol=1e-6)


@pytest.mark.parametrize(
    ("bad_request", "kind", "told"),
    [
        (images(), InvalidArgumentError, "images has 0 entries, must have 1 to max_images_per_request = 4"),
        (images(*[PHOTO] * 5), InvalidArgumentError, "images has 5 entries"),
        (images(PHOTO, model="other"), NotFoundError, "model 'other' is not served here; served are tiny@"),
        (images(PHOTO, top_tags=101), InvalidArgumentError, "top_tags is 101, must be 0 to 100"),
    ],
)
async def test_bad_requests_name_field_limit_and_value(tiny_model, bad_request, kind, told):
    async with serving(tiny_model, max_images_per_request=4) as embedder:
        with pytest.raises(grpc.RpcError) as caught:
            await embedder.stub.Embed(bad_request)
        error = from_rpc_error(caught.value)
        assert type(error) is kind
        assert told in error.message
        assert error.violations


async def test_get_model_says_what_is_served_within_which_limits(tiny_model):
    card = load_card(tiny_model)
    async with serving(tiny_model, max_image_side=5000) as embedder:
        model = await embedder.stub.GetModel(embedder_pb2.GetModelRequest(model="tiny"))
        assert (model.name, model.fingerprint, model.dim) == ("tiny", card.fingerprint, 32)
        assert (model.input_height, model.input_width, model.tag_count) == (64, 64, 0)
        assert model.provider == "CPUExecutionProvider"
        assert model.limits.max_image_side == 5000
        assert list(model.limits.formats) == ["jpeg", "png", "webp"]
        with pytest.raises(grpc.RpcError) as caught:
            await embedder.stub.GetModel(embedder_pb2.GetModelRequest(model="other"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_tags_come_from_the_classifier(lite_model):
    async with serving(lite_model, max_batch=1) as embedder:
        response = await embedder.stub.Embed(images(PHOTO, top_tags=5))
        tags = response.results[0].tags
        assert len(tags) == 5
        probabilities = [tag.probability for tag in tags]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1
        assert all(tag.label for tag in tags)
        assert not (await embedder.stub.Embed(images(PHOTO))).results[0].tags


async def test_a_full_interactive_queue_refuses_with_retry_advice_and_recovers(tiny_model, device):
    settings = {"interactive_queue_items": 4, "bulk_queue_items": 4, "max_images_per_request": 4}
    async with serving(tiny_model, **settings) as embedder:
        device.hold()
        waiting = [asyncio.ensure_future(embedder.stub.Embed(images(PHOTO, OTHER))) for _ in range(2)]
        await eventually(lambda: embedder.held == 4)
        with pytest.raises(grpc.RpcError) as caught:
            await embedder.stub.Embed(images(PHOTO))
        error = from_rpc_error(caught.value)
        assert type(error) is OverloadedError
        assert 0 < error.retry_after <= 5
        assert "interactive_queue_items is 4" in error.message
        bulk = asyncio.ensure_future(
            embedder.stub.Embed(images(PHOTO, priority=embedder_pb2.PRIORITY_BULK))
        )  # has a queue of its own
        await eventually(lambda: embedder.held == 5)
        device.release.set()
        for each in (*waiting, bulk):
            assert all(result.status.code == 0 for result in (await each).results)
        assert (await embedder.stub.Embed(images(PHOTO))).results[0].status.code == 0
        assert embedder.held == 0


async def test_a_single_image_that_waited_too_long_is_refused_but_images_of_one_request_wait_for_each_other(
    tiny_model, device
):
    async with serving(tiny_model, interactive_queue_seconds=0.2) as embedder:
        device.hold()
        first = asyncio.ensure_future(embedder.stub.Embed(images(PHOTO)))
        await eventually(lambda: device.batches == [1])
        late = asyncio.ensure_future(embedder.stub.Embed(images(OTHER)))
        together = asyncio.ensure_future(embedder.stub.Embed(images(PHOTO, OTHER)))
        await eventually(lambda: embedder.held == 4)
        await asyncio.sleep(0.3)
        device.release.set()
        await first
        with pytest.raises(grpc.RpcError) as caught:
            await late
        error = from_rpc_error(caught.value)
        assert type(error) is OverloadedError
        assert error.retry_after is not None
        assert [result.status.code for result in (await together).results] == [0, 0]


async def test_a_full_bulk_queue_waits_instead(tiny_model, device):
    settings = {"interactive_queue_items": 4, "bulk_queue_items": 4, "max_images_per_request": 4}
    async with serving(tiny_model, **settings) as embedder:
        device.hold()
        request = images(PHOTO, OTHER, PHOTO, priority=embedder_pb2.PRIORITY_BULK)
        calls = [asyncio.ensure_future(embedder.stub.Embed(request)) for _ in range(3)]
        await eventually(lambda: embedder.in_flight._count == 3)
        assert embedder.held == 3
        device.release.set()
        for call in calls:
            assert all(result.status.code == 0 for result in (await call).results)


async def test_work_of_a_caller_who_left_is_dropped_before_the_model(tiny_model, device):
    async with serving(tiny_model) as embedder:
        device.hold()
        first = asyncio.ensure_future(embedder.stub.Embed(images(PHOTO)))
        await eventually(lambda: device.batches == [1])
        gone = embedder.stub.Embed(images(PHOTO, OTHER, PHOTO))
        late = embedder.stub.Embed(images(PHOTO, OTHER), timeout=0.3)
        await eventually(lambda: len(embedder.pipeline.lanes) == 5)
        gone.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            await late
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: embedder.held == 1)
        device.release.set()
        await first
        assert (await embedder.stub.Embed(images(OTHER))).results[0].status.code == 0
        assert device.batches == [1, 1]  # neither the three nor the two


async def test_an_expired_image_is_dropped_also_where_its_caller_still_waits(tiny_model, device):
    async with serving(tiny_model) as embedder:
        image = embedder_pb2.ImageInput(data=PHOTO)
        answer = await embedder.pipeline.embed(
            ImageFile.of(image), Caller.with_time_left(Priority.INTERACTIVE, "", 0.0)
        )
        assert type(answer.error) is DeadlineError
        assert answer.embedding is None
        assert device.batches == []


async def test_a_failing_model_is_an_internal_error_of_its_images(tiny_model, monkeypatch):
    async with serving(tiny_model) as embedder:

        def fail(session, pixels):
            raise RuntimeError("device lost")

        with monkeypatch.context() as patch:
            patch.setattr(Session, "run", fail)
            (result,) = (await embedder.stub.Embed(images(PHOTO))).results
            assert result.status.code == grpc.StatusCode.INTERNAL.value[0]
            assert "device lost" not in result.status.message
        assert (await embedder.stub.Embed(images(PHOTO))).results[0].status.code == 0


def stream_request(sequence, data, **fields):
    return embedder_pb2.EmbedStreamRequest(sequence=sequence, image=embedder_pb2.ImageInput(data=data), **fields)


async def test_a_stream_answers_every_image_by_its_number(tiny_model, vector):
    contents = {sequence: (PHOTO, b"text", OTHER)[sequence % 3] for sequence in range(60)}
    async with serving(tiny_model, stream_window_items=7) as embedder:
        alone = (await embedder.stub.Embed(images(PHOTO, OTHER))).results

        async def requests():
            for sequence, data in contents.items():
                yield stream_request(sequence, data)

        answers = {}
        async for answer in embedder.stub.EmbedStream(requests()):
            assert answer.sequence not in answers
            answers[answer.sequence] = answer.result
        assert answers.keys() == contents.keys()
        for sequence, result in answers.items():
            if sequence % 3 == 1:
                assert "found text" in result.status.message
            else:
                np.testing.assert_allclose(vector(result), vector(alone[sequence % 3 // 2]), atol=1e-5)
        assert embedder.held == 0


async def test_a_stream_holds_no_more_than_its_window_and_waits_for_its_reader(tiny_model, device):
    async with serving(tiny_model, stream_window_items=3, max_batch=1) as embedder:
        device.hold()
        call = embedder.stub.EmbedStream()
        for sequence in range(10):
            await call.write(stream_request(sequence, PHOTO))
        await call.done_writing()
        await eventually(lambda: embedder.held == 3)
        device.release.set()
        assert sorted([answer.sequence async for answer in call]) == list(range(10))


async def test_a_stream_that_breaks_off_leaves_nothing_behind(tiny_model, device):
    async with serving(tiny_model) as embedder:
        device.hold()
        call = embedder.stub.EmbedStream()
        for sequence in range(5):
            await call.write(stream_request(sequence, PHOTO))
        await eventually(lambda: embedder.held == 5 and device.batches)
        call.cancel()
        await eventually(lambda: embedder.held == 0)
        await eventually(lambda: embedder.in_flight._count == 0)
        device.release.set()
        assert (await embedder.stub.Embed(images(PHOTO))).results[0].status.code == 0
        assert device.batches[1:] == [1]  # of the five none but those that were on the device


async def test_a_stream_of_interactive_priority_is_refused_item_by_item(tiny_model, device):
    settings = {"interactive_queue_items": 1, "bulk_queue_items": 1, "max_images_per_request": 1}
    async with serving(tiny_model, **settings) as embedder:
        device.hold()
        call = embedder.stub.EmbedStream()
        for sequence in range(2):
            await call.write(stream_request(sequence, PHOTO, priority=embedder_pb2.PRIORITY_INTERACTIVE))
        refused = await call.read()
        assert refused.sequence == 1
        assert isinstance(from_status(refused.result.status), OverloadedError)
        device.release.set()
        await call.done_writing()
        assert (await call.read()).result.status.code == 0
        assert await call.read() is grpc.aio.EOF


async def test_a_stream_ends_when_the_service_drains_after_answering_what_it_took(tiny_model, device):
    async with serving(tiny_model) as embedder:
        device.hold()
        silent = embedder.stub.EmbedStream()
        call = embedder.stub.EmbedStream()
        await silent.wait_for_connection()
        for sequence in range(3):
            await call.write(stream_request(sequence, PHOTO))
        await eventually(lambda: embedder.held == 3)
        embedder.lifecycle.draining.set()
        device.release.set()
        assert sorted([answer.sequence async for answer in call]) == [0, 1, 2]
        assert [answer async for answer in silent] == []
        await eventually(lambda: embedder.in_flight._count == 0)


async def test_streams_refuse_unknown_models_and_take_silence_for_an_end(tiny_model):
    async with serving(tiny_model) as embedder:

        async def requests(*messages):
            for message in messages:
                yield message

        with pytest.raises(grpc.RpcError) as caught:
            await anext(aiter(embedder.stub.EmbedStream(requests(stream_request(0, PHOTO, model="other")))))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert [answer async for answer in embedder.stub.EmbedStream(requests())] == []
        answers = [
            answer async for answer in embedder.stub.EmbedStream(requests(stream_request(7, PHOTO, top_tags=101)))
        ]
        assert [answer.sequence for answer in answers] == [7]
        assert "top_tags is 101" in answers[0].result.status.message


@pytest.mark.parametrize(
    ("timeout", "told"),
    [(None, "interactive_queue_seconds is 0.5"), (0.3, "the deadline is in 0.")],
    ids=["longer than allowed", "longer than the caller has"],
)
async def test_what_would_wait_too_long_is_refused_with_advice(tiny_model, device, timeout, told):
    async with serving(tiny_model, interactive_queue_seconds=0.5) as embedder:
        device.hold()
        first = asyncio.ensure_future(embedder.stub.Embed(images(PHOTO)))
        await eventually(lambda: embedder.held == 1)
        embedder.pipeline.lanes.seconds_per_image = 0.6 if timeout is None else 0.4
        with pytest.raises(grpc.RpcError) as caught:
            await embedder.stub.Embed(images(OTHER), timeout=timeout)
        error = from_rpc_error(caught.value)
        assert type(error) is OverloadedError
        assert "the wait for the 1 images before this one would be 0." in error.message
        assert told in error.message
        assert error.retry_after == pytest.approx(embedder.pipeline.lanes.seconds_per_image)
        device.release.set()
        assert (await first).results[0].status.code == 0
        assert (await embedder.stub.Embed(images(OTHER))).results[0].status.code == 0  # nobody before it
