"""From a model's attention to a box, and what the service does with it."""

import asyncio
import csv
import io
import time

import grpc
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from models.card import Interpolation, ResizeMode, load_card
from models.tiny import build_tiny
from services.embedder.crop import Crop
from services.embedder.pipeline import Caller, ImageFile
from services.embedder.priority import Priority
from services.embedder.resize import Resizer
from services.embedder.session import Session
from services.embedder.subject import blend, find_subject
from services.local.stack import ROOT
from tests.embedder import pictures
from tests.embedder.serving import eventually, serving
from tests.embedder.shard import FailingShard
from vitrine.errors import DeadlineError, OverloadedError, from_rpc_error
from vitrine.v1 import common_pb2, embedder_pb2

DETECT, CROP = embedder_pb2.SUBJECT_MODE_DETECT, embedder_pb2.SUBJECT_MODE_CROP
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def attending_model(tmp_path_factory):
    """Directory of the tiny model with its attention."""
    return build_tiny(tmp_path_factory.mktemp("attending"), attends=True)


def resizer(folder, mode, height=64, width=64):
    card = load_card(folder)
    preprocessing = card.preprocessing.model_copy(
        update={"resize": mode, "interpolation": Interpolation.AREA, "pad_colour": (0, 0, 0)}
    )
    input_ = card.input.model_copy(update={"height": height, "width": width})
    return Resizer(card.model_copy(update={"preprocessing": preprocessing, "input": input_}))


SIDES = st.integers(1, 3000)
GRIDS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    elements=st.floats(0, 2.0**60, width=32) | st.sampled_from([0.0, 1.0, float("inf"), float("nan")]),
)


@settings(max_examples=400)
@given(attention=GRIDS, mode=st.sampled_from(list(ResizeMode)), width=SIDES, height=SIDES, side=st.integers(8, 300))
def test_a_box_is_valid_whatever_the_model_says(tiny_model, attention, mode, width, height, side):
    shown = resizer(tiny_model, mode, 64, side).shown(width, height)
    with np.errstate(all="ignore"):
        subject = find_subject(attention, shown)
    if subject is not None:
        assert 0 <= subject.left < subject.right <= 1
        assert 0 <= subject.top < subject.bottom <= 1
        assert Crop.from_box(subject.to_box()) == subject  # who sends it back gets the same crop


@pytest.mark.parametrize("attention", [np.zeros((7, 7)), np.full((7, 7), 9.0), np.full((7, 7), np.nan)])
def test_nothing_stands_out_where_all_is_alike(attention):
    assert find_subject(attention.astype(np.float32), WHOLE) is None


def test_the_box_lies_around_what_stands_out_and_moves_by_less_than_a_cell():
    attention = np.ones((7, 7), np.float32)
    attention[3:5, 1:3] = 100
    box = find_subject(attention, WHOLE)
    assert (box.left + box.right) / 2 == pytest.approx(2 / 7, abs=1e-6)
    assert (box.top + box.bottom) / 2 == pytest.approx(4 / 7, abs=1e-6)
    assert 2 / 7 < box.right - box.left < 3 / 7
    attention[3:5, 2] = 120
    moved = find_subject(attention, WHOLE)
    assert 0 < moved.left - box.left < 0.5 / 7


def test_a_subject_that_fills_the_picture_is_none():
    attention = np.full((7, 7), 100, np.float32)
    attention[0, 0] = 0
    assert find_subject(attention, WHOLE) is None


@settings(max_examples=300)
@given(
    mode=st.sampled_from(list(ResizeMode)),
    width=st.integers(20, 3000),
    height=st.integers(20, 3000),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
def test_a_place_in_the_picture_is_found_in_the_picture(tiny_model, mode, width, height, x, y):
    """A mark is drawn and the picture resized as the card says; the box must lie around it, a cell more or less."""
    assume(max(width, height) < 8 * min(width, height))
    resize = resizer(tiny_model, mode)
    left, top, right, bottom = resize.shown(width, height)
    cell_width, cell_height = (right - left) / 16, (bottom - top) / 16
    assume(left < x < right and top < y < bottom)  # the rest of the picture is cut off
    column, row = min(int(x * width), width - 1), min(int(y * height), height - 1)
    reach_x, reach_y = int(cell_width * width / 2) + 1, int(cell_height * height / 2) + 1
    picture = np.zeros((height, width, 3), np.uint8)
    picture[max(row - reach_y, 0) : row + reach_y, max(column - reach_x, 0) : column + reach_x] = 255
    cells = resize(picture)[..., 0].astype(np.float32).reshape(16, 4, 16, 4).sum((1, 3))
    box = find_subject(cells, (left, top, right, bottom))
    assert box is not None
    assert box.left - cell_width <= (column + 0.5) / width <= box.right + cell_width
    assert box.top - cell_height <= (row + 0.5) / height <= box.bottom + cell_height
    assert box.right - box.left < 6 * cell_width
    assert box.bottom - box.top < 6 * cell_height


def test_what_the_input_shows_of_a_picture(tiny_model):
    letterbox = resizer(tiny_model, ResizeMode.LETTERBOX)
    np.testing.assert_allclose(letterbox.shown(128, 64), (0, -0.5, 1, 1.5))
    np.testing.assert_allclose(letterbox.shown(33, 33), WHOLE)
    np.testing.assert_allclose(resizer(tiny_model, ResizeMode.SQUASH).shown(500, 20), WHOLE)
    np.testing.assert_allclose(resizer(tiny_model, ResizeMode.CENTRE_CROP).shown(128, 64), (0.25, 0, 0.75, 1))


def test_a_blend_has_norm_one_and_lies_between():
    one, other = np.eye(4, dtype=np.float32)[:2]
    both = blend(one, other)
    assert np.linalg.norm(both) == pytest.approx(1, abs=1e-6)
    assert 0 < both[0] < both[1]  # the subject counts for more


# The real model on real products.


def gallery(count):
    folder = ROOT / "examples" / "catalogue"
    with (folder / "products.csv").open(encoding="utf-8", newline="") as rows:
        names = [row["images"].split(";")[0] for row in csv.DictReader(rows)]
    return [Image.open(folder / name).convert("RGB") for name in names[:: len(names) // count][:count]]


def placed(product, ground, side, left, top):
    """The product without its white, on a ground; returns the file and the product's box in pixels."""
    small = product.resize((side, side), Image.Resampling.LANCZOS)
    mask = Image.fromarray((np.asarray(small).min(axis=2) < 245).astype(np.uint8) * 255)
    scene = ground.copy()
    scene.paste(small, (left, top), mask)
    x0, y0, x1, y1 = mask.getbbox()
    buffer = io.BytesIO()
    scene.save(buffer, "JPEG", quality=92)
    return buffer.getvalue(), (left + x0, top + y0, left + x1, top + y1)


async def test_the_real_model_finds_a_product_off_centre(lite_model):
    size = (640, 480)
    grounds = [Image.new("RGB", size, "white"), pictures.smooth(*size, seed=8)]
    corners = [(20, 20), (390, 20), (20, 230), (390, 230)]
    async with serving(lite_model) as embedder:
        inside, covered, shares = [], [], []
        for number, product in enumerate(gallery(8)):
            for ground in grounds:
                data, (x0, y0, x1, y1) = placed(product, ground, 230, *corners[number % 4])
                (result,) = (await embedder.stub.Embed(request(data, DETECT))).results
                box = result.subject
                left, right = box.x * size[0], (box.x + box.width) * size[0]
                top, bottom = box.y * size[1], (box.y + box.height) * size[1]
                inside.append(left < (x0 + x1) / 2 < right and top < (y0 + y1) / 2 < bottom)
                shared = max(min(right, x1) - max(left, x0), 0) * max(min(bottom, y1) - max(top, y0), 0)
                covered.append(shared / ((x1 - x0) * (y1 - y0)))
                shares.append(box.width * box.height)
    assert np.mean(inside) > 0.9
    assert np.mean(covered) > 0.6
    assert max(shares) < 0.75
    assert np.mean(shares) < 0.4


async def test_a_picture_without_a_subject_has_none(lite_model):
    async with serving(lite_model) as embedder:
        for image in (Image.new("RGB", (300, 300), "white"), Image.new("RGB", (300, 200), "black")):
            whole, cropped = (
                await embedder.stub.Embed(
                    request(pictures.encode(image, "PNG"), embedder_pb2.SUBJECT_MODE_UNSPECIFIED, CROP)
                )
            ).results
            assert not cropped.HasField("subject")
            assert cropped.vector == whole.vector


# The service.


def marked(seed=0):
    """A grey picture with one striking square right of and above its middle."""
    image = Image.new("RGB", (160, 160), (128, 128, 128))
    tiles = np.random.default_rng(seed).integers(0, 2, (4, 4, 3)).astype(np.uint8) * 255
    image.paste(Image.fromarray(tiles).resize((64, 64), Image.Resampling.NEAREST), (80, 24))
    return pictures.encode(image, "PNG")


PHOTO = marked()


def request(data, *modes, **fields):
    return embedder_pb2.EmbedRequest(
        images=[embedder_pb2.ImageInput(data=data, subject=mode) for mode in modes], **fields
    )


def numbers(result):
    return np.frombuffer(result.vector.data, "<f4")


class Device:
    """Counts the images that reach the model, and holds the device when told to."""

    def __init__(self, monkeypatch):
        self.batches = []
        self.before = lambda: None
        real = Session.run

        def run(session, pixels):
            self.batches.append(len(pixels))
            self.before()
            return real(session, pixels)

        monkeypatch.setattr(Session, "run", run)


@pytest.fixture
def device(monkeypatch):
    return Device(monkeypatch)


async def test_modes_side_by_side_each_say_and_embed_what_they_should(attending_model):
    async with serving(attending_model) as embedder:
        assert (await embedder.stub.GetModel(embedder_pb2.GetModelRequest())).finds_subjects
        both = request(PHOTO, embedder_pb2.SUBJECT_MODE_UNSPECIFIED, DETECT, CROP)
        plain, detected, cropped = (await embedder.stub.Embed(both)).results
        assert not plain.HasField("subject")
        assert detected.subject == cropped.subject
        box = detected.subject
        assert (box.x + box.width / 2, box.y + box.height / 2) == pytest.approx((112 / 160, 56 / 160), abs=0.1)
        np.testing.assert_allclose(numbers(detected), numbers(plain), atol=1e-6)
        boxed = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=PHOTO, box=detected.subject)])
        (near,) = (await embedder.stub.Embed(boxed)).results
        np.testing.assert_allclose(numbers(cropped), blend(numbers(plain), numbers(near)), atol=1e-5)
        assert numbers(cropped) @ numbers(plain) < 0.9999
        assert embedder.held == 0


async def test_a_crop_spends_its_time_in_both_passes(attending_model, device):
    async with serving(attending_model) as embedder:
        device.batches.clear()
        device.before = lambda: time.sleep(0.05)
        response = await embedder.stub.Embed(request(PHOTO, CROP))
        assert device.batches == [1, 1]
        assert {each.stage: each.seconds for each in response.timings}["model"] >= 0.1


async def test_a_model_that_cannot_tell_embeds_all_the_same(tiny_model, device):
    async with serving(tiny_model) as embedder:
        assert not (await embedder.stub.GetModel(embedder_pb2.GetModelRequest())).finds_subjects
        device.batches.clear()
        (plain,) = (await embedder.stub.Embed(request(PHOTO, embedder_pb2.SUBJECT_MODE_UNSPECIFIED))).results
        for mode in (DETECT, CROP):
            (result,) = (await embedder.stub.Embed(request(PHOTO, mode))).results
            assert not result.HasField("subject")
            assert result.vector == plain.vector
        assert device.batches == [1, 1, 1]


async def test_a_box_and_a_subject_or_an_unknown_mode_cost_that_image_only(attending_model):
    async with serving(attending_model) as embedder:
        sent = request(PHOTO, DETECT, CROP, DETECT, 7)
        for image in sent.images[:2]:
            image.box.CopyFrom(common_pb2.Box(x=0, y=0, width=0.5, height=0.5))
        results = (await embedder.stub.Embed(sent)).results
        assert [result.status.code for result in results] == [INVALID, INVALID, 0, INVALID]
        assert results[0].status.message == "image.subject and image.box: send one of them"
        assert "image.subject is 7" in results[3].status.message


async def test_a_stream_takes_each_image_its_own_way(attending_model):
    async with serving(attending_model) as embedder:
        modes = [embedder_pb2.SUBJECT_MODE_UNSPECIFIED, DETECT, CROP]
        wanted = (await embedder.stub.Embed(request(PHOTO, *modes))).results

        async def send():
            for sequence in range(12):
                image = embedder_pb2.ImageInput(data=PHOTO, subject=modes[sequence % 3])
                yield embedder_pb2.EmbedStreamRequest(sequence=sequence, image=image)

        seen = {each.sequence: each.result async for each in embedder.stub.EmbedStream(send())}
        assert sorted(seen) == list(range(12))
        for sequence, result in seen.items():
            assert result.subject == wanted[sequence % 3].subject
            np.testing.assert_allclose(numbers(result), numbers(wanted[sequence % 3]), atol=1e-5)


async def test_a_catalogue_can_be_ingested_by_its_subjects(attending_model):
    def item(sequence, **image):
        key = common_pb2.PointKey(product_id=f"p{sequence}", image_id="1")
        image = embedder_pb2.ImageInput(data=PHOTO, **image)
        return embedder_pb2.IngestRequest(item=embedder_pb2.IngestItem(sequence=sequence, key=key, image=image))

    async def send():
        yield embedder_pb2.IngestRequest(start=embedder_pb2.IngestStart(collection="shop", create_if_missing=True))
        yield item(0)
        yield item(1, subject=CROP)
        yield item(2, subject=CROP, box=common_pb2.Box(x=0, y=0, width=0.5, height=0.5))

    async with FailingShard() as shard, serving(attending_model, indexers=[shard.address]) as embedder:
        acks = {ack.sequence: ack.status.code async for ack in embedder.stub.Ingest(send())}
        assert acks == {0: 0, 1: 0, 2: INVALID}
        wanted = (await embedder.stub.Embed(request(PHOTO, embedder_pb2.SUBJECT_MODE_UNSPECIFIED, CROP))).results
        stored = {each.point.key.product_id: np.frombuffer(each.point.vector.data, "<f4") for each in shard.acked}
        for result, product in zip(wanted, ("p0", "p1"), strict=True):
            np.testing.assert_allclose(stored[product], numbers(result), atol=1e-5)


async def test_the_cache_answers_every_mode_from_the_passes_it_has_seen(attending_model, device):
    async with serving(attending_model, cache_memory_bytes=2**20) as embedder:

        async def embed(sent):
            device.batches.clear()
            (result,) = (await embedder.stub.Embed(sent)).results
            assert result.status.code == 0
            return result, len(device.batches)

        plain, runs = await embed(request(PHOTO, embedder_pb2.SUBJECT_MODE_UNSPECIFIED))
        assert (runs, plain.HasField("subject")) == (1, False)
        detected, runs = await embed(request(PHOTO, DETECT))
        assert (runs, detected.HasField("subject")) == (0, True)
        assert detected.vector == plain.vector
        cropped, runs = await embed(request(PHOTO, CROP))
        assert runs == 1
        assert cropped.vector != plain.vector
        again, runs = await embed(request(PHOTO, CROP))
        assert (runs, again.vector, again.subject) == (0, cropped.vector, detected.subject)
        # A page that shows the box and sends it back finds its vector there.
        boxed = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=PHOTO, box=detected.subject)])
        assert (await embed(boxed))[1] == 0
        assert (await embed(request(PHOTO, embedder_pb2.SUBJECT_MODE_UNSPECIFIED)))[0].vector == plain.vector


async def test_both_passes_are_admitted_before_the_first(attending_model, device, monkeypatch):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    limits = {"interactive_queue_items": 3, "max_images_per_request": 1}
    async with serving(attending_model, **limits) as embedder:
        device.batches.clear()
        device.before = lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        first = asyncio.ensure_future(embedder.stub.Embed(request(PHOTO, CROP)))
        await eventually(lambda: device.batches == [1])
        assert embedder.held == 2
        with pytest.raises(grpc.RpcError) as caught:
            await embedder.stub.Embed(request(marked(1), CROP))
        assert type(from_rpc_error(caught.value)) is OverloadedError
        detected = asyncio.ensure_future(embedder.stub.Embed(request(marked(1), DETECT)))  # one pass fits
        await eventually(lambda: embedder.held == 3)
        release.set()
        for call in (first, detected):
            assert (await call).results[0].HasField("subject")
        await eventually(lambda: embedder.held == 0)


async def test_a_lone_crop_is_alone_in_both_passes(attending_model, monkeypatch):
    async with serving(attending_model) as embedder:
        seen = []
        model = embedder.app.registry.find("").model
        real = model.run
        monkeypatch.setattr(model, "run", lambda pixels, alone=False: seen.append(alone) or real(pixels, alone))
        await embedder.stub.Embed(request(PHOTO, CROP))
        assert seen == [True, True]


async def test_a_deadline_between_the_passes_saves_the_second(attending_model, device):
    async with serving(attending_model) as embedder:
        caller = Caller.with_time_left(Priority.INTERACTIVE, "", 1.0)
        device.batches.clear()
        device.before = lambda: time.sleep(max(caller.deadline - time.monotonic(), 0) + 0.01)
        file = ImageFile.of(embedder_pb2.ImageInput(data=PHOTO, subject=CROP))
        answer = await embedder.pipeline.embed(file, caller)
        assert type(answer.error) is DeadlineError
        assert answer.embedding is None
        assert device.batches == [1]


async def test_a_caller_who_leaves_between_the_passes_costs_no_second(attending_model, device):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with serving(attending_model) as embedder:
        device.batches.clear()
        device.before = lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        call = embedder.stub.Embed(request(PHOTO, CROP))
        running = asyncio.ensure_future(call)
        await eventually(lambda: device.batches == [1])
        call.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await eventually(lambda: embedder.held == 0)
        release.set()
        (result,) = (await embedder.stub.Embed(request(marked(1), DETECT))).results
        assert result.status.code == 0
        assert device.batches == [1, 1]
