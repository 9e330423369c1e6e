"""OpenCV, set up before its first use; every other module takes `cv2` from here."""

from __future__ import annotations

import os

from services.embedder.limits import PIXEL_CEILING

# Should a file ever say one size to our parsers and another to its decoders.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(PIXEL_CEILING)

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(1)  # pictures are decoded side by side; threads inside one would fight over the cores
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a caller's bad file is the caller's error
