"""Reads the calibrations that Recognize judges by."""

from __future__ import annotations

from pathlib import Path

import structlog

from services.runtime.server import StartError
from vitrine.recognition.calibration import CalibrationFileError
from vitrine.recognition.shelf import Shelf

log = structlog.get_logger()


def load_shelf(folder: Path | None) -> Shelf:
    """Returns the calibrations in a folder; none where it is not set. Blocks.

    Raises:
        StartError: The folder is not there, or a file in it is bad.
    """
    if folder is None:
        return Shelf()
    try:
        shelf = Shelf.of_folder(folder)
    except CalibrationFileError as error:
        raise StartError(f"calibration_dir: {error}") from None
    log.info("calibrations read", folder=str(folder), collections=shelf.collections)
    return shelf
