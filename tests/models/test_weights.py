import collections
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from models.weights import EFFICIENTNET_LITE0, WeightsError, parse_state_dict, read_published

SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Reduce:
    """Pickles as a call of a global by name, as torch writes its tensors."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class Storage(tuple):
    """Pickles as a persistent id."""


class Global:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class LegacyPickler(pickle._Pickler):  # the Python one: lets a test write names that are not importable
    def persistent_id(self, obj: object) -> object:
        return tuple(obj) if isinstance(obj, Storage) else None

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Reduce):
            self.save(Global(obj.module, obj.name))
            self.save(obj.arguments)
            self.write(b"R")
        else:
            super().save(obj, save_persistent_id)


def tensor(key: str, size: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Reduce:
    storage = Storage(("storage", Global("torch", "FloatStorage"), key, "cpu", size, None))
    arguments = (storage, offset, shape, strides, False, collections.OrderedDict())
    return Reduce("torch._utils", "_rebuild_tensor_v2", *arguments)


def legacy_file(path: Path, state: object, storages: dict[str, list[float]]) -> bytes:
    with path.open("wb") as stream:
        for part in (0x1950A86A20F9469CFC6C, 1001, SYSTEM, state, list(storages)):
            LegacyPickler(stream, 2).dump(part)
        for values in storages.values():
            stream.write(struct.pack("<q", len(values)) + np.array(values, "<f4").tobytes())
    return path.read_bytes()


def test_a_strided_tensor_is_read_in_the_order_of_its_shape(tmp_path: Path) -> None:
    state = collections.OrderedDict(w=tensor("7", 6, 1, (2, 2), (1, 2)))
    parsed = parse_state_dict(legacy_file(tmp_path / "w", state, {"7": [0, 1, 2, 3, 4, 5]}))
    assert parsed["w"].tolist() == [[1, 3], [2, 4]]
    assert parsed["w"].flags.c_contiguous


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (3, (2, 2), (2, 1), "outside its storage"),
        (0, (2, 2), (1,), "do not belong together"),
        (-1, (2,), (1,), "do not belong together"),
        (0, (1000, 1000), (0, 0), "exceeds its storage"),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], message: str
) -> None:
    data = legacy_file(tmp_path / "w", {"w": tensor("7", 6, offset, shape, strides)}, {"7": [0.0] * 6})
    with pytest.raises(WeightsError, match=f"tensor w: .*{message}"):
        parse_state_dict(data)


@pytest.mark.parametrize("position", range(5))
def test_code_in_any_of_the_pickles_is_refused_and_not_run(tmp_path: Path, position: int) -> None:
    proof = tmp_path / "ran"
    hostile = pickle.dumps(Touch(proof))
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, SYSTEM, {}, [])]
    parts[position] = hostile
    with pytest.raises(WeightsError, match=r"asks for .*, which is not on the allow-list"):
        parse_state_dict(b"".join(parts))
    assert not proof.exists()
    pickle.loads(hostile)
    assert proof.exists(), "the pickle was harmless, so the test proved nothing"


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_the_published_file_reads_whole_and_damage_is_found() -> None:
    data = read_published(EFFICIENTNET_LITE0)
    weights = parse_state_dict(data)
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in weights.values())
    for damaged, message in (
        (data[:-1], "truncated"),
        (data + b"\0", "bytes follow"),
        (data[:5000], "not a legacy torch file"),
        (b"", "not a legacy torch file"),
        (pickle.dumps(1) * 5, "magic number"),
    ):
        with pytest.raises(WeightsError, match=message):
            parse_state_dict(damaged)


def test_a_file_with_another_checksum_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(WeightsError, match=rf"{EFFICIENTNET_LITE0.file}: sha256 is 5793.*expected 0000"):
        read_published(EFFICIENTNET_LITE0._replace(sha256="0" * 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"package": "no_such_package"}, "is not installed"), ({"file": "models/none.pth"}, "holds no file")],
)
def test_a_missing_package_or_file_is_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_published(EFFICIENTNET_LITE0._replace(**change))
