"""Repairs against pixels computed here: orientation, alpha, deep and palette pixels, limits."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fovea.pipeline.decode import decode_grey, decode_rgb
from fovea.pipeline.errors import UserError
from fovea.pipeline.jpeg import read_header
from fovea.pipeline.repair import BadImage, RepairOptions, repair

RAMP = np.stack(
    np.broadcast_arrays(np.arange(0, 240, 5)[None], np.arange(0, 160, 5)[:, None], 90), axis=-1
).astype(np.uint8)  # (32, 48, 3), smooth: survives JPEG within a few levels
OPTIONS = RepairOptions()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(data: bytes, pixels: np.ndarray, levels: int = 4) -> bool:
    got = decode_rgb(data).astype(int)
    return got.shape == pixels.shape and bool((np.abs(got - pixels) <= levels).all())


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_plain_jpegs_pass_byte_for_byte(progressive: bool, subsampling: str) -> None:
    data = saved(Image.fromarray(RAMP), "JPEG", progressive=progressive, subsampling=subsampling)
    result = repair(data, OPTIONS)
    assert (result.data, result.kind) == (data, "copied")
    assert (result.width, result.height) == (48, 32)
    grey = saved(Image.fromarray(RAMP[..., 0]), "JPEG")
    assert repair(grey, OPTIONS).data == grey


# What a viewer does with each EXIF orientation (EXIF 2.3, table 6), written as array operations.
UPRIGHT = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(RAMP), "JPEG", quality=98, subsampling=0, exif=exif)
    result = repair(data, OPTIONS)
    assert result.kind == "EXIF orientation" and read_header(result.data).orientation == 1
    assert close(result.data, UPRIGHT[orientation](RAMP))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "AVIF"])
def test_other_formats_whatever_their_name(kind: str) -> None:
    result = repair(saved(Image.fromarray(RAMP), kind), OPTIONS)
    assert result.kind == kind and close(result.data, RAMP, 24 if kind in ("GIF", "WEBP") else 6)


def test_cmyk() -> None:
    data = saved(Image.fromarray(RAMP).convert("CMYK"), "JPEG", quality=98, subsampling=0)
    result = repair(data, OPTIONS)
    assert result.kind == "CMYK" and read_header(result.data).components == 3
    assert close(result.data, RAMP, 6)


def test_rgb_jpeg_without_colour_transform() -> None:
    data = saved(Image.fromarray(RAMP), "JPEG", quality=98, keep_rgb=True)
    result = repair(data, OPTIONS)
    assert result.kind == "RGB JPEG" and close(result.data, RAMP)


def test_transparent_pixels_take_the_background() -> None:
    alpha = np.zeros((32, 48), np.uint8)
    alpha[:, :24] = 255
    alpha[:, 24:32] = 128
    data = saved(Image.fromarray(np.dstack([RAMP, alpha])), "PNG")
    for level in (0, 200):
        share = alpha[..., None] / 255
        want = RAMP * share + level * (1 - share)
        result = repair(data, RepairOptions(background=level))
        got = decode_rgb(result.data).astype(float)
        assert np.abs(got - want).mean() < 3 and np.abs(got[:, 40:] - level).max() <= 6


def test_sixteen_bits_scale_to_eight() -> None:
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    png = cv2.imencode(".png", deep)[1].tobytes()
    got = decode_grey(repair(png, OPTIONS).data).astype(float)
    assert np.abs(got - deep / 257).max() <= 3
    rgb = cv2.imencode(".png", np.repeat(deep[..., None], 3, axis=2))[1].tobytes()
    assert np.abs(decode_grey(repair(rgb, OPTIONS).data) - deep / 257).max() <= 3


GREY = np.linspace(0, 255, 64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.mark.parametrize(
    "deep",
    [
        (GREY * 257).astype(np.int32),
        GREY.astype(np.int32),
        GREY / 255,
        GREY,
        GREY / 255 * 1.01 - 0.005,  # resampled: a little beyond black and white
    ],
)
def test_greys_without_a_white_of_their_own(deep: np.ndarray) -> None:
    got = decode_grey(repair(saved(Image.fromarray(deep), "TIFF"), OPTIONS).data).astype(float)
    assert np.abs(got - GREY).max() <= 4


@pytest.mark.parametrize(
    "deep", [GREY * 1e4, (GREY * 300).astype(np.int32), GREY - 100, np.full_like(GREY, np.nan)]
)
def test_greys_of_unknown_scale_are_refused(deep: np.ndarray) -> None:
    with pytest.raises(BadImage, match="nothing says which is white; convert it to 8 or 16 bits"):
        repair(saved(Image.fromarray(deep), "TIFF"), OPTIONS)


def test_palette_and_bilevel() -> None:
    flat = np.zeros((32, 48, 3), np.uint8)
    flat[:, 24:] = (200, 40, 10)
    paletted = Image.fromarray(flat).quantize(2)
    assert close(repair(saved(paletted, "PNG"), OPTIONS).data, flat, 8)
    assert paletted.mode == "P"
    bilevel = Image.fromarray(flat[..., 0] > 0)
    got = decode_grey(repair(saved(bilevel, "PNG"), OPTIONS).data)
    assert (got[:, :20] < 8).all() and (got[:, 28:] > 247).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(kind: str) -> None:
    frames = [Image.new("RGB", (24, 24), (level, level, level)) for level in (40, 140, 240)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(decode_grey(repair(data, OPTIONS).data).astype(int) - 40).max() <= 3


def test_multi_picture_jpegs_keep_the_first_without_loss() -> None:
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    data = saved(first, "MPO", save_all=True, append_images=[second], quality=90)
    result = repair(data, OPTIONS)
    assert result.kind == "MPO" and len(result.data) < len(data)
    assert Image.open(io.BytesIO(result.data)).format == "JPEG"
    assert np.array_equal(decode_rgb(result.data), decode_rgb(data))


def test_max_side_shrinks_and_keeps_small_ones() -> None:
    big = np.kron(RAMP, np.ones((20, 20, 1), np.uint8))  # 640 x 960
    data = saved(Image.fromarray(big), "JPEG", quality=95)
    result = repair(data, RepairOptions(max_side_px=96))
    assert (result.width, result.height, result.kind) == (96, 64, "resized")
    want = cv2.resize(big, (96, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(decode_rgb(result.data) - want).mean() < 3
    small = saved(Image.fromarray(RAMP), "JPEG")
    assert repair(small, RepairOptions(max_side_px=96)).data == small


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(b""),
    ]
    framed = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_bombs_are_refused_by_their_header() -> None:
    tracemalloc.start()
    with pytest.raises(BadImage, match="too large"):
        repair(png_header(30000, 20000), OPTIONS)
    data = bytearray(saved(Image.fromarray(RAMP), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(BadImage, match="too large: 60000x60000"):
        repair(bytes(data), OPTIONS)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    with pytest.raises(BadImage, match="too large"):
        repair(saved(Image.fromarray(RAMP), "PNG"), RepairOptions(max_pixels=48 * 32))


MEASURE = """
import sys
from pathlib import Path
from fovea.pipeline.repair import RepairOptions, repair
data = Path(sys.argv[1]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")
print(repair(data, RepairOptions()).kind)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "pixels"),
    [
        ("x.jpg", {}, 71e6),
        ("x.jpg", {"progressive": True, "subsampling": 0}, 35.5e6),
        ("x.png", {"compress_level": 1}, 35.5e6),
        ("x.webp", {"quality": 50, "method": 0}, 26.5e6),
    ],
)
def test_the_largest_images_keep_a_worker_below_500_mb(
    tmp_path: Path, name: str, options: dict, pixels: float
) -> None:
    side = int(pixels**0.5)
    mode = "RGBA" if name.endswith("png") else "RGB"
    Image.new(mode, (side, side), (200, 30, 5, 77)[: len(mode)]).save(tmp_path / name, **options)
    words = [sys.executable, "-c", MEASURE, str(tmp_path / name)]
    kind, peak_kb = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    assert kind in ("copied", "PNG", "WEBP") and int(peak_kb) < 500_000


@pytest.mark.parametrize(
    ("data", "reason", "cause"),
    [
        (b"", "empty file", "EmptyFile"),
        (b"<html>404</html>", "not an image", "UnidentifiedImageError"),
        (bytes(5000), "not an image", "UnidentifiedImageError"),
        (saved(Image.fromarray(RAMP), "JPEG")[:-20], "truncated", "JpegError"),
        (saved(Image.fromarray(RAMP), "PNG")[:-40], "damaged", "OSError"),
        (b"\xff\xd8\xff\xd9", "no image data", "JpegError"),
    ],
)
def test_what_is_broken_says_why(data: bytes, reason: str, cause: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        repair(data, OPTIONS)
    assert caught.value.cause == cause


def test_nonsense_options_are_refused() -> None:
    for wrong in ({"quality": 0}, {"background": 256}, {"max_side_px": -1}, {"max_pixels": 0}):
        with pytest.raises(UserError, match="want"):
            RepairOptions(**wrong)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\xff\x0a rest", "JPEG XL"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\n <!DOCTYPE html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\0\0\xff\xd8\xff\xe0", "a JPEG behind 2 other bytes"),
        (b"plain words", "not an image of a known format"),
    ],
)
def test_the_reason_says_what_the_file_is(start: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        repair(start + bytes(99), OPTIONS)


def test_twelve_bits_are_refused_by_name() -> None:
    data = bytearray(saved(Image.fromarray(RAMP), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(BadImage, match="a JPEG of a kind that no decoder here reads"):
        repair(bytes(data), OPTIONS)


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_deep_tiff_planes_that_pillow_misreads_are_refused(planar: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    deep = RAMP.astype(np.uint16) * 257
    buffer = io.BytesIO()
    pixels = deep.transpose(2, 0, 1).copy() if planar == "separate" else deep
    tifffile.imwrite(buffer, pixels, photometric="rgb", planarconfig=planar)
    if planar == "contig":
        assert close(repair(buffer.getvalue(), OPTIONS).data, RAMP, 6)
    else:
        with pytest.raises(BadImage, match="separate planes of over 8 bits"):
            repair(buffer.getvalue(), OPTIONS)
