"""OpenCV, set up before its first use; every other module takes `cv2` from here."""

from __future__ import annotations

import os

# OpenCV's own wall behind our limits, should a file ever say one size to our parsers and another to its decoders.
MAX_PIXELS = 2**28
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)

import cv2  # noqa: E402 - it reads the limit when loaded

__all__ = ["MAX_PIXELS", "cv2"]

cv2.setNumThreads(1)  # pictures are decoded side by side; threads inside one would fight over the cores
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a caller's bad file is the caller's error
