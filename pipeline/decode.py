"""Bytes to pixels on the host: the decoder of whole images, for loader, saliency job and sharder.

The pixels are those stored in the file: an EXIF orientation is not applied and alpha is dropped
(the sharder has dealt with both), 16-bit values are reduced to 8. OpenCV's libjpeg-turbo gives
the same pixels as Pillow and DALI's CPU decoder (accurate integer DCT, smooth chroma).
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

cv2.setNumThreads(0)  # callers bring their own threads; a pool inside each would only contend

COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION


Encoded = bytes | memoryview
"""An image as it is stored: JPEG, PNG, or whatever else OpenCV decodes."""


class DecodeError(ValueError):
    """The bytes are not an image that training can decode."""


def decode_rgb(data: Encoded) -> NDArray[np.uint8]:
    """Decode to RGB, uint8 (H, W, 3) in C order.

    Raises:
        DecodeError: OpenCV cannot decode `data`.
    """
    return _decode(data, COLOUR)


def decode_grey(data: Encoded) -> NDArray[np.uint8]:
    """Decode a mask or grey image, uint8 (H, W).

    Raises:
        DecodeError: OpenCV cannot decode `data`.
    """
    return _decode(data, GREY)


def _decode(data: Encoded, flags: int) -> NDArray[np.uint8]:
    if not data:
        raise DecodeError("no bytes")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DecodeError(f"OpenCV: {error.err or error}") from None
    if pixels is None:
        raise DecodeError(f"OpenCV cannot decode these {len(data)} bytes")
    return cast(NDArray[np.uint8], pixels)
