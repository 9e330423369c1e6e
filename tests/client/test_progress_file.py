"""The file an interrupted job continues from."""

import json

import pytest

from vitrine.collections.progress import ProgressFile, ProgressFileError


def test_only_the_same_job_continues(tmp_path):
    path = tmp_path / "progress"
    mine = ProgressFile(path, {"copy": "a", "to": ["x", "y"]})
    assert mine.load() is None
    mine.note({"after": {"0": ["P1", "é"]}})
    mine.flush()
    assert ProgressFile(path, {"copy": "a", "to": ["x", "y"]}).load() == {"after": {"0": ["P1", "é"]}}
    with pytest.raises(ProgressFileError, match="progress of another job"):
        ProgressFile(path, {"copy": "b", "to": ["x", "y"]}).load()
    assert list(tmp_path.iterdir()) == [path]
    mine.remove()
    mine.flush()
    assert list(tmp_path.iterdir()) == []


def test_what_was_noted_last_is_what_flush_writes(tmp_path):
    file = ProgressFile(tmp_path / "progress", {})
    state = {"done": 0}
    for done in range(50):
        state["done"] = done
        file.note(state)
    file.flush()
    assert file.load() == {"done": 49}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 1, "job": {}, "state": 3}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "progress"
    path.write_bytes(content)
    with pytest.raises(ProgressFileError, match="remove it to start afresh"):
        ProgressFile(path, {}).load()


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "progress"
    path.write_text(json.dumps({"format": 2, "job": {}, "state": {}}))
    with pytest.raises(ProgressFileError):
        ProgressFile(path, {}).load()
