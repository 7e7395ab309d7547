"""One source file to one JPEG that every decoder of training reads alike, or the reason why not.

Plain JPEGs (baseline or progressive, grey or YCbCr) pass byte for byte. What decoders disagree
about is decoded once, here, with Pillow and encoded again; what is damaged is refused.

What "plain" means was found by feeding odd files to OpenCV, Pillow and DALI's CPU decoder: DALI
refuses stray bytes between segments, arithmetic coding and uncommon chroma sampling, which the
others read; it turns images by their EXIF orientation, which others do not; CMYK differs by a
level or two. Of truncated files OpenCV returns the upper part, so the end mark is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from .decode import DecodeError, decode_rgb
from .errors import UserError
from .jpeg import SOI, JpegError, JpegHeader, read_header
from .picture import BadPicture, Limits, encode_jpeg, open_upright, shrink

Validate = Literal["decode", "header"]

CHROMA_1X1 = ((1, 1), (1, 1))
LUMA = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)}  # 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1


class BadImage(Exception):
    """A source image that no training run should see; `cause` is the type of the first error."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(reason, cause)
        self.reason = reason
        self.cause = cause


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """How images are judged and re-encoded."""

    validate: Validate = "decode"
    max_pixels: int = 72_000_000  # width * height of a baseline JPEG; see `picture.PIXEL_SHARE`
    max_side_px: int = 0  # longer side after re-encoding; 0 keeps every size
    quality: int = 95  # of what is re-encoded, 1 to 100
    background: int = 255  # grey level behind transparent pixels

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: want 1 to 100")
        if not 0 <= self.background <= 255:
            raise UserError(f"--background {self.background}: want a grey level, 0 to 255")
        if self.max_side_px < 0 or 0 < self.max_side_px < 8:
            raise UserError(f"--max-side {self.max_side_px}: want 8 pixels or more, or 0 for any")
        if self.max_pixels < 64:
            raise UserError(f"--max-pixels {self.max_pixels}: want width * height of a large image")


class Repaired(NamedTuple):
    """A JPEG for the shard. `kind` is "copied", or says why the bytes are not those of the file."""

    data: bytes
    width: int
    height: int
    kind: str


def repair(data: bytes, options: RepairOptions) -> Repaired:
    """The JPEG for the source file `data`.

    Raises:
        BadImage: it is not an image, damaged, or too large.
    """
    if not data:
        raise BadImage("empty file", "EmptyFile")
    try:
        if data[:2] == SOI:
            return _jpeg(data, options)
        return _encode(data, None, options)
    except BadPicture as error:
        raise BadImage(error.reason, error.cause) from None
    except (JpegError, DecodeError) as error:
        raise BadImage(f"JPEG: {error}", type(error).__name__) from None


def _jpeg(data: bytes, options: RepairOptions) -> Repaired:
    header = read_header(data)
    oddity = odd_kind(header)
    light = oddity is None and header.process != 2
    limits = Limits(options.max_pixels)
    (limits if light else limits.share("JPEG")).check(header.width, header.height)
    if oddity is not None:
        return _encode(data, oddity, options)
    if 0 < options.max_side_px < max(header.width, header.height):
        return _encode(data, "resized", options)
    kind = "copied"
    if header.multi_picture:
        data, kind = first_picture(data, header), "MPO"
    if options.validate == "decode":
        _certify(data, header.width, header.height)
    return Repaired(data, header.width, header.height, kind)


def odd_kind(header: JpegHeader) -> str | None:
    """Why decoders may disagree about a JPEG, or None for a plain one."""
    if header.precision_bits != 8:
        return f"{header.precision_bits}-bit JPEG"
    if header.process not in (0, 1, 2):
        return "arithmetic or lossless JPEG"
    if header.components == 4:
        return "CMYK"
    if header.components == 3 and (
        header.adobe_transform not in (None, 1) or header.component_ids == b"RGB"
    ):
        return "RGB JPEG"
    if header.components not in (1, 3):
        return f"JPEG of {header.components} components"
    if header.components == 3 and not (
        header.sampling[0] in LUMA and header.sampling[1:] == CHROMA_1X1
    ):
        return "uncommon chroma sampling"
    if header.orientation != 1:
        return "EXIF orientation"
    return "stray bytes between markers" if header.stray_bytes else None


def first_picture(data: bytes, header: JpegHeader) -> bytes:
    """The first image of a multi-picture file by itself: what follows and its directory are cut."""
    kept, at = [], 0
    for start, stop in header.multi_picture:
        kept.append(data[at:start])
        at = stop
    return b"".join([*kept, data[at : header.end]])


def _encode(data: bytes, kind: str | None, options: RepairOptions) -> Repaired:
    limits = Limits(options.max_pixels)
    image, name = open_upright(data, options.background, limits, options.max_side_px)
    image = shrink(image, options.max_side_px)
    encoded = encode_jpeg(image, options.quality)
    width, height = image.size
    del image  # before the check decodes it once more
    if options.validate == "decode":
        _certify(encoded, width, height)
    return Repaired(encoded, width, height, kind or name)


def _certify(data: bytes, width: int, height: int) -> None:
    """Decode as training will; the size must be that of the header."""
    pixels = decode_rgb(data)
    if pixels.shape[:2] != (height, width):
        raise DecodeError(f"decodes to {pixels.shape[1]}x{pixels.shape[0]}, not {width}x{height}")
