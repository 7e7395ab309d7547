"""Decodes of a JPEG only what the views of an image show of it.

Two views of ReSSL show two thirds of their image. Outside of them a decoder must read the codes,
but can leave out the transform, the chroma and the colours, and stop below the last row: an eighth
of the time for ReSSL, a quarter for one view. libjpeg can do so, and nvImageCodec, which comes with
DALI, is its only binding for Python that says where; its pixels are those of `decode.decode_rgb`
to the level. Without it images are decoded whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from .decode import Encoded, decode_rgb

# Read when it is imported. It would say of each bad file what `decode_rgb` says in its error.
os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
try:
    from nvidia import nvimgcodec as codec
except ImportError:
    codec = None

U8 = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels of the whole image."""

JPEG_BEGINS = b"\xff\xd8"
DECODES_WINDOWS = codec is not None and tuple(map(int, codec.__version__.split(".")[:2])) >= (0, 9)
"""Whether there is an nvImageCodec whose decoders can write to an image that they made before."""


@dataclass(frozen=True)
class Window:
    """Pixels of an image of which perhaps only a part was decoded.

    Args:
        pixels: uint8 (h, w, 3).
        left_px, top_px: where they lie in the image.
        size_wh: width and height of the whole image.
    """

    pixels: U8
    left_px: int
    top_px: int
    size_wh: tuple[int, int]

    @staticmethod
    def whole(pixels: U8) -> Window:
        """All of an image."""
        return Window(pixels, 0, 0, pixels.shape[1::-1])

    def cut(self, box: Box) -> U8:
        """What is in a box: a view of `pixels`.

        Raises:
            ValueError: the box is not inside the image.
        """
        x, y, w, h = box
        if x + w > self.size_wh[0] or y + h > self.size_wh[1]:
            raise ValueError(f"window {w}x{h}+{x}+{y} is outside {self.size_wh} px")
        x, y = x - self.left_px, y - self.top_px
        return self.pixels[y : y + h, x : x + w]


_this_thread = local()


def around(boxes: list[Box]) -> Box:
    """The smallest box that holds all of some boxes."""
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return left, top, right - left, bottom - top


def decode_window(data: Encoded, box: Box, slot: str = "") -> Window:
    """Decode what is in a box of an image, or all of the image if there is no way to do less.

    Args:
        data: the encoded image.
        box: what will be cut from it.
        slot: the pixels are valid until this thread's next call for the same slot.

    Raises:
        DecodeError: the image cannot be decoded.
    """
    window = None
    if DECODES_WINDOWS and data[:2] == JPEG_BEGINS:
        if not hasattr(_this_thread, "decoder"):
            _this_thread.decoder = _Decoder()
        window = _this_thread.decoder.decode(data, box, slot)
    return Window.whole(decode_rgb(data)) if window is None else window


class _Decoder:
    """Decoder of one thread, and images whose memory it uses again.

    Fresh memory for each image costs a twentieth of its decoding.
    """

    def __init__(self) -> None:
        self._images: dict[str, Any] = {}
        self._as_stored = codec.DecodeParams(apply_exif_orientation=False)
        self._decoder = codec.Decoder(
            device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
            max_num_cpu_threads=1,
            backends=[codec.Backend(codec.CPU_ONLY)],
        )

    def decode(self, data: Encoded, box: Box, slot: str) -> Window | None:
        """The box, or None for what this decoder does not do: `decode_rgb` has the last word."""
        x, y, w, h = box
        try:
            stream = codec.CodeStream(data)
            size = stream.width, stream.height
            if stream.num_channels > 3:  # inks, which OpenCV mixes in a way of its own
                return None
            part = stream.get_sub_code_stream(region=codec.Region(y, x, y + h, x + w))
        except RuntimeError:
            return None
        image = self._decoder.decode(part, image=self._images.get(slot), params=self._as_stored)
        if image is None:
            return None
        self._images[slot] = image
        return Window(np.asarray(image), x, y, size)
