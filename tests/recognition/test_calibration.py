"""Calibration files: what is written is read again; everything else is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine.errors import PreconditionError
from vitrine.recognition.calibration import Basis, Calibration, CalibrationFileError, Rates, load
from vitrine.recognition.curve import Curve
from vitrine.recognition.shelf import Shelf

SPACE = "ab" * 32
share = st.floats(0, 1)
count = st.integers(0, 10**9)


def calibration(collection="shop", fingerprint=SPACE, min_confidence=0.5):
    return Calibration(
        collection, fingerprint, Curve(25.0, -11.0), min_confidence, Rates(0.95, 0.8, 0.01), Basis(900, 300, 300, 900)
    )


@given(
    st.builds(
        Calibration,
        collection=st.from_regex(r"\A[a-z][a-z0-9_-]{0,63}\Z"),
        fingerprint=st.just(SPACE),
        curve=st.builds(Curve, st.floats(1e-6, 1e6), st.floats(-1e6, 1e6)),
        min_confidence=share,
        expected=st.builds(Rates, share, share, share),
        basis=st.builds(Basis, count, count, count, count),
    )
)
def test_what_is_written_is_read_again(one):
    assert Calibration.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "shop.calibration.json"
    calibration(min_confidence=0.4).save(path)
    calibration().save(path)
    assert load(path) == calibration()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def changed(**values):
    return {**calibration().to_json(), **values}


BAD = {
    "not a JSON object": [],
    "lacks curve": {name: value for name, value in changed().items() if name != "curve"},
    "unknown comment": changed(comment="mine"),
    "format is 'vitrine-calibration/2'": changed(format="vitrine-calibration/2"),
    "collection 'Shop'": changed(collection="Shop"),
    "collection is not a name": changed(collection=7),
    "fingerprint is not 64": changed(fingerprint="AB" * 32),
    "curve is not a JSON object": changed(curve=3),
    "curve.slope is 0, must be above 0": changed(curve={"slope": 0, "offset": 1}),
    "curve.slope is not a number": changed(curve={"slope": True, "offset": 1}),
    "curve.offset is nan": changed(curve={"slope": 1, "offset": float("nan")}),
    "min_confidence is 1.5, must be 0 to 1": changed(min_confidence=1.5),
    "expected.refused is -1": changed(expected={"refused": -1, "accepted": 0, "mistaken": 0}),
    "basis.trials is not a count": changed(basis={"points": 1, "products": 1, "sampled": 1, "trials": 0.5}),
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_file_is_refused_by_name(tmp_path, told):
    path = tmp_path / "bad.calibration.json"
    path.write_text(json.dumps(BAD[told]))
    with pytest.raises(CalibrationFileError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 60_000, b" " * 70_000])
def test_what_is_no_json_or_too_long_is_refused(tmp_path, content):
    path = tmp_path / "bad.calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationFileError, match=r"bad\.calibration\.json: "):
        load(path)


def test_a_folder_holds_at_most_one_for_each_collection(tmp_path):
    calibration("one").save(tmp_path / "a.calibration.json")
    calibration("two").save(tmp_path / "b.calibration.json")
    (tmp_path / "notes.json").write_text("not looked at")
    assert Shelf.of_folder(tmp_path).collections == ["one", "two"]
    calibration("two").save(tmp_path / "c.calibration.json")
    with pytest.raises(CalibrationFileError, match="both for collection 'two'"):
        Shelf.of_folder(tmp_path)
    with pytest.raises(CalibrationFileError, match="is not a folder"):
        Shelf.of_folder(tmp_path / "nowhere")


def test_a_calibration_counts_in_its_embedding_space_only():
    shelf = Shelf([calibration()])
    assert shelf.find("shop", SPACE) == calibration()
    assert shelf.find("other", SPACE) is None
    with pytest.raises(PreconditionError, match="run `vitrine calibrate shop` again"):
        shelf.find("shop", "cd" * 32)
