"""The calibrations of a gateway: at most one for each collection."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from vitrine.errors import PreconditionError
from vitrine.recognition.calibration import SUFFIX, Calibration, CalibrationFileError, load
from vitrine.recognition.curve import Curve

DEFAULT_CURVE = Curve(slope=24.5, offset=-10.5)
"""The mean over twelve halves of 311 products of furniture, with the default model; elsewhere only a guess."""
DEFAULT_MIN_CONFIDENCE = 0.5
"""More likely than not, with as many photos of products that are there as of others."""


class Shelf:
    """Calibrations by collection."""

    def __init__(self, calibrations: Iterable[Calibration] = ()) -> None:
        self._by_collection = {each.collection: each for each in calibrations}

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Reads every calibration file (`*.calibration.json`) of a folder; blocks.

        Raises:
            CalibrationFileError: There is no such folder, a file is bad, or two are for one collection.
        """
        if not folder.is_dir():
            raise CalibrationFileError(f"{folder} is not a folder")
        found: dict[str, Path] = {}
        calibrations = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            calibration = load(path)
            if other := found.get(calibration.collection):
                raise CalibrationFileError(f"{path} and {other} are both for collection {calibration.collection!r}")
            found[calibration.collection] = path
            calibrations.append(calibration)
        return cls(calibrations)

    @property
    def collections(self) -> list[str]:
        """Names of those there are calibrations for."""
        return sorted(self._by_collection)

    def find(self, collection: str, fingerprint: str) -> Calibration | None:
        """Returns the calibration of a collection, by its own name; None: there is none.

        Raises:
            PreconditionError: It is of another embedding space.
        """
        found = self._by_collection.get(collection)
        if found is not None and found.fingerprint != fingerprint:
            raise PreconditionError(
                f"the calibration of collection {collection!r} is of model {found.fingerprint}, its vectors are of "
                f"{fingerprint or '(none)'}: run `vitrine calibrate {collection}` again"
            )
        return found
