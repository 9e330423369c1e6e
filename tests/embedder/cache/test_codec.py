import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embedder.cache.codec import InvalidEntryError, check, encode, entry_bytes, view
from services.embedder.cache.key import VectorSpace
from services.embedder.cache.vector import CachedVector, TopClasses
from services.embedder.crop import Crop
from tests.embedder.cache.entries import CLASSES, DIM, assert_same, key, vector

GOOD = encode(vector(), key())


def reason(raw, under=None):
    with pytest.raises(InvalidEntryError) as caught:
        check(raw, under or key())
    return caught.value.reason


@given(
    dim=st.integers(1, 2000),
    classes=st.integers(0, 1500),
    seed=st.integers(0, 2**32 - 1),
    subject=st.one_of(
        st.none(),
        st.builds(
            lambda across, down: Crop(across[0], down[0], across[1], down[1]),
            *[st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted)] * 2,
        ),
    ),
)
def test_what_is_written_is_read(dim, classes, seed, subject):
    place = VectorSpace("f" * 64, dim, classes).key(seed.to_bytes(32, "big"), Crop())
    written = vector(seed, dim, classes, subject)
    raw = encode(written, place)
    assert len(raw) == entry_bytes(place)
    assert_same(view(check(raw, place), place), written)


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_flipped_bit_is_found(bit):
    damaged = bytearray(GOOD)
    damaged[bit // 8] ^= 1 << bit % 8
    assert reason(bytes(damaged)) in {"format", "version", "shape", "checksum"}


@given(st.integers(0, len(GOOD) - 1))
def test_a_value_cut_short_is_found(length):
    assert reason(GOOD[:length]) == "length"


@given(st.one_of(st.binary(max_size=500), st.none(), st.integers(), st.text(), st.lists(st.binary())))
def test_nothing_but_an_entry_is_taken_for_one(raw):
    assert reason(raw) in {"length", "format"}


def test_what_else_can_be_wrong():
    assert reason(GOOD + b"\0") == "length"
    assert reason(GOOD[:3] + b"\1" + GOOD[4:]) == "version"
    assert reason(GOOD, VectorSpace("f" * 64, DIM + 1, CLASSES).key(bytes(32), Crop())) == "shape"
    assert reason(GOOD, VectorSpace("f" * 64, DIM, CLASSES - 1).key(bytes(32), Crop())) == "shape"
    assert reason(GOOD, key(1)) == "checksum"  # whole, but another image's


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (CachedVector(np.full(DIM, np.nan, np.float32), vector().classes), "not_finite"),
        (CachedVector(np.full(DIM, np.inf, np.float32), vector().classes), "not_finite"),
        (CachedVector(vector().embedding * np.float32(1.01), vector().classes), "norm"),
        (CachedVector(np.zeros(DIM, np.float32), vector().classes), "norm"),
        (CachedVector(vector(dim=DIM + 1).embedding, vector().classes), "shape"),
        (CachedVector(vector().embedding), "shape"),
        (vector(subject=Crop(0.2, 0.2, 0.2, 0.8)), "subject"),
        (vector(subject=Crop(0.2, 0.2, 0.4, 1.1)), "subject"),
        (vector(subject=Crop(-0.1, 0.2, 0.4, 0.8)), "subject"),
        (vector(subject=Crop(0.2, math.nan, 0.4, 0.8)), "subject"),
        (CachedVector(vector().embedding, vector(classes=CLASSES + 1).classes), "shape"),
        (
            CachedVector(
                vector().embedding,
                TopClasses(np.arange(CLASSES, dtype=np.uint32), np.full(CLASSES, np.nan, np.float32)),
            ),
            "classes",
        ),
    ],
)
def test_a_bad_vector_is_not_written_nor_read(bad, expected, monkeypatch):
    with pytest.raises(InvalidEntryError) as caught:
        encode(bad, key())
    assert caught.value.reason == expected
    if expected != "shape":  # whoever wrote it had no such check
        with monkeypatch.context() as patch:
            patch.setattr("services.embedder.cache.codec._check", lambda vector, key: None)
            raw = encode(bad, key())
        assert reason(raw) == expected


def test_a_class_that_the_model_does_not_have_is_not_kept():
    top = TopClasses(np.full(CLASSES, CLASSES, np.uint32), np.full(CLASSES, 0.1, np.float32))
    with pytest.raises(InvalidEntryError, match="classes"):
        encode(CachedVector(vector().embedding, top), key())


def test_a_model_without_a_classifier_has_no_classes():
    top = TopClasses(np.empty(0, np.uint32), np.empty(0, np.float32))
    with pytest.raises(InvalidEntryError, match="shape"):
        encode(CachedVector(vector().embedding, top), VectorSpace("f" * 64, DIM).key(bytes(32), Crop()))


def test_arrays_of_an_entry_cannot_be_written_to():
    found = view(GOOD, key())
    for array in (found.embedding, found.classes.indices, found.classes.probabilities):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_top_classes_are_the_softmax_of_the_logits_most_probable_first():
    logits = np.random.default_rng(3).standard_normal(1000).astype(np.float32)
    logits[100:200] = logits.max() - 1  # equal ones too
    top = TopClasses.from_logits(logits)
    exponentials = [math.exp(float(logit)) for logit in logits]
    expected = sorted(range(1000), key=lambda index: (-exponentials[index], index))[:100]
    assert top.indices.tolist() == expected
    np.testing.assert_allclose(
        top.probabilities, [exponentials[index] / sum(exponentials) for index in expected], rtol=1e-6
    )
