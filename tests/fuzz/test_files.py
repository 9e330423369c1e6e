"""Manifests and segments that are not what was written: refused by name, or exactly what they were; never a crash."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.indexer.files import write_checked
from services.indexer.manifest import DamagedManifestError, SegmentEntry, load_manifest, save_manifest
from services.indexer.segments import DamagedSegmentError, load_segment, write_segment
from tests.fuzz.edits import edited
from vitrine.v1 import indexer_pb2

DIM, ROWS = 8, 40
METRIC = indexer_pb2.METRIC_COSINE
ENTRIES = [SegmentEntry(name=f"000{number}-ab", rows=7, checksums={"labels.npy": "12" * 32}) for number in range(2)]
QUICK = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
THOROUGH = settings(QUICK, max_examples=5_000)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["segments", "format", "name", "rows", "checksums", "x"]), inner, max_size=4),
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    save_manifest(folder, ENTRIES)
    return folder, (folder / "manifest.json").read_bytes()


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    entry = write_segment(
        folder / "segments" / "0001",
        folder / "scratch",
        np.arange(ROWS, dtype=np.int64),
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        metric=METRIC,
        m=4,
        ef_construction=20,
        threads=1,
        reduce=False,
    )
    return folder / "segments" / "0001", entry


def read_edited_manifest(manifest, data):
    folder, content = manifest
    changed = data.draw(edited(content))
    (folder / "manifest.json").write_bytes(changed)
    try:
        found = load_manifest(folder)
    except DamagedManifestError:
        return
    assert found == ENTRIES or changed == b""


def read_segment_with_an_edited_file(segment, data):
    folder, entry = segment
    name = data.draw(st.sampled_from(sorted(entry.checksums)))
    content = (folder / name).read_bytes()
    changed = data.draw(edited(content))
    (folder / name).write_bytes(changed)
    try:
        if changed == content:
            load_segment(folder, entry, dim=DIM, metric=METRIC)
        else:
            with pytest.raises(DamagedSegmentError, match=name):
                load_segment(folder, entry, dim=DIM, metric=METRIC)
    finally:
        (folder / name).write_bytes(content)


@QUICK
@given(data=st.data())
def test_an_edited_manifest_is_refused_or_the_same(manifest, data):
    read_edited_manifest(manifest, data)


@pytest.mark.slow
@THOROUGH
@given(data=st.data())
def test_an_edited_manifest_is_refused_or_the_same_in_many_tries(manifest, data):
    read_edited_manifest(manifest, data)


@QUICK
@given(body=st.dictionaries(st.sampled_from(["segments", "format", "x"]), st.one_of(JSON, st.just(1)), max_size=3))
def test_a_manifest_with_a_good_checksum_over_anything_is_read_or_refused(tmp_path, body):
    write_checked(tmp_path / "manifest.json", body)
    try:
        for entry in load_manifest(tmp_path):
            json.dumps(entry.model_dump())
    except DamagedManifestError:
        pass


@QUICK
@given(data=st.data())
def test_a_segment_with_an_edited_file_is_refused(segment, data):
    read_segment_with_an_edited_file(segment, data)


@pytest.mark.slow
@THOROUGH
@given(data=st.data())
def test_a_segment_with_an_edited_file_is_refused_in_many_tries(segment, data):
    read_segment_with_an_edited_file(segment, data)
