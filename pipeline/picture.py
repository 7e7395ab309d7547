"""Any image file to an upright 8-bit grey or RGB picture, with Pillow, and that to a JPEG."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .magic import describe

SIDE_LIMIT_PX = 65500  # libjpeg's JPEG_MAX_DIMENSION
OVERSHOOT = 0.02  # share of white by which resampling may have gone beyond black and white
STRIP_PX = 1 << 20  # deep pixels are reduced to 8 bits this many at a time

# Bytes per pixel at the worst moment: 6 for a baseline JPEG in OpenCV, up to 12 on the way through
# Pillow, 16 where the codec keeps planes of its own. So a worker of any job stays below 500 MB.
DEFAULT_SHARE = 1 / 2
PIXEL_SHARE = {"WEBP": 3 / 8, "AVIF": 3 / 8, "JPEG2000": 3 / 8}
PLANAR_TAG, BITS_TAG, SEPARATE = 284, 258, 2  # of TIFF

# Formats of pictures only: others run programs (EPS), hold documents, or are guesses.
FORMATS = (
    "JPEG MPO PNG WEBP GIF BMP DIB TIFF PPM ICO TGA DDS JPEG2000 AVIF PCX SGI QOI ICNS SPIDER"
).split()


class BadPicture(Exception):
    """Pillow cannot read it, or it is too large; `cause` is the type of the first error."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason, cause)
        self.reason = reason
        self.cause = cause


@dataclass(frozen=True)
class Limits:
    """Sizes that are refused before memory is spent on them."""

    max_pixels: int

    def share(self, format_name: str) -> Limits:
        """The limits for a format that is decoded by Pillow."""
        return Limits(int(self.max_pixels * PIXEL_SHARE.get(format_name, DEFAULT_SHARE)))

    def check(self, width: int, height: int) -> None:
        """Raises BadPicture where the size is zero or above the limits."""
        if width <= 0 or height <= 0:
            raise BadPicture(f"no pixels: {width}x{height}", "NoPixels")
        if width * height > self.max_pixels:
            raise BadPicture(
                f"too large: {width}x{height} is over {self.max_pixels} pixels", "PixelLimit"
            )
        if max(width, height) > SIDE_LIMIT_PX:
            raise BadPicture(
                f"too large: {width}x{height} has a side over {SIDE_LIMIT_PX}", "PixelLimit"
            )


def open_upright(
    data: bytes, background: int, limits: Limits, max_side_px: int = 0
) -> tuple[Image.Image, str]:
    """First frame of `data`, mode "L" or "RGB", turned by its EXIF orientation, transparent pixels
    over the grey level `background`; and the name of the format.

    With `max_side_px` a JPEG may come at a half, quarter or eighth of its size, still at least
    twice as large as asked for.

    Raises:
        BadPicture: no image of a known format, damaged, or beyond `limits`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; what matters is raised
            image: Image.Image = Image.open(io.BytesIO(data), formats=_formats())
            name = image.format or "unknown format"
            limits.share(name).check(*image.size)
            _refuse_deep_planes(image)
            if max_side_px:
                image.draft(None, (2 * max_side_px, 2 * max_side_px))
            bits = max(getattr(image, "tag_v2", {}).get(BITS_TAG, (16,)))
            image.load()
            image = ImageOps.exif_transpose(image)
            return _flatten(image, background, bits), name
    except BadPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BadPicture(f"too large: {error}", type(error).__name__) from None
    except UnidentifiedImageError:
        raise BadPicture(describe(data), "UnidentifiedImageError") from None
    except Exception as error:  # Pillow raises a dozen types on damaged files
        cause = type(error).__name__
        raise BadPicture(f"damaged: {cause}: {error}", cause) from None


def _refuse_deep_planes(image: Image.Image) -> None:
    """Pillow reads an uncompressed TIFF of 16-bit planes as if they were of 8 bits, and says
    nothing."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANAR_TAG) == SEPARATE and max(tags.get(BITS_TAG, (8,))) > 8:
        raise BadPicture("TIFF of separate planes of over 8 bits", "NotSupported")


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _flatten(image: Image.Image, background: int, bits: int) -> Image.Image:
    """`bits` are those of a grey value in the file where the mode has more than 8."""
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(np.asarray(image), bits)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        below = Image.new("RGB", image.size, (background,) * 3)
        below.paste(image, mask=image.getchannel("A"))
        return below
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _to_8_bit(deep: NDArray[Any], bits: int) -> Image.Image:
    white = _white(deep, bits)
    grey = np.empty(deep.shape, np.uint8)
    rows = max(1, STRIP_PX // deep.shape[1])
    for top in range(0, deep.shape[0], rows):
        strip = np.nan_to_num(deep[top : top + rows].astype(np.float64)) * (255.0 / white)
        grey[top : top + rows] = np.clip(np.rint(strip), 0, 255)
    return Image.fromarray(grey)


def _white(deep: NDArray[Any], bits: int) -> float:
    """Which value is white: 65535 of 16 bits; of 32 bits and floats, which have no white of their
    own, the first that no value exceeds of 1 (floats only), 255 and 65535 (integers only).

    Raises:
        BadPicture: values are beyond all of these.
    """
    floats = deep.dtype.kind == "f"
    if not floats and bits <= 16:
        return 65535.0
    low, high = float(np.nanmin(deep)), float(np.nanmax(deep))
    for white in (1.0, 255.0) if floats else (255.0, 65535.0):
        if -OVERSHOOT * white <= low and high <= (1 + OVERSHOOT) * white:
            return white
    raise BadPicture(
        f"grey values from {low:g} to {high:g}, and nothing says which is white;"
        " convert it to 8 or 16 bits",
        "UnknownScale",
    )


def shrink(image: Image.Image, max_side_px: int) -> Image.Image:
    """`image` with its longer side at most `max_side_px`; 0 keeps it."""
    longer = max(image.size)
    if not 0 < max_side_px < longer:
        return image
    scale = max_side_px / longer
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Baseline JPEG of a grey or RGB picture, chroma at full resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=False)
    return buffer.getvalue()
