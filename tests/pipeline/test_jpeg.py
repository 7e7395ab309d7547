"""The marker reader on files of known structure, and the EXIF reader against Pillow's writer."""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fovea.pipeline import jpeg as markers
from fovea.pipeline.jpeg import JpegError, exif_orientation, read_header

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)


def jpeg(**options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("options", "process", "sampling"),
    [
        ({"subsampling": "4:4:4"}, 0, (1, 1)),
        ({"subsampling": "4:2:2"}, 0, (2, 1)),
        ({"subsampling": "4:2:0", "progressive": True}, 2, (2, 2)),
        ({"subsampling": "4:2:0", "restart_marker_blocks": 1}, 0, (2, 2)),
    ],
)
def test_what_the_frame_says(options: dict, process: int, sampling: tuple[int, int]) -> None:
    data = jpeg(**options)
    header = read_header(data)
    assert (header.width, header.height, header.components) == (56, 40, 3)
    assert (header.process, header.precision_bits) == (process, 8)
    assert header.sampling == (sampling, (1, 1), (1, 1))
    assert header.end == len(data) and header.stray_bytes == 0
    assert read_header(data + b"trailing bytes \xff\xd8").end == len(data)


def test_grey_and_cmyk() -> None:
    grey = cv2.imencode(".jpg", PIXELS[..., 0])[1].tobytes()
    assert read_header(grey).components == 1
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(buffer, "JPEG")
    header = read_header(buffer.getvalue())
    assert header.components == 4 and header.adobe_transform is not None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"])
def test_exif_orientation(orientation: int, order: bytes) -> None:
    byte_order = "little" if order[:2] == b"II" else "big"
    entry = b"".join(
        value.to_bytes(size, byte_order)
        for value, size in [(1, 2), (0x0112, 2), (3, 2), (1, 4), (orientation, 2), (0, 2)]
    )
    assert exif_orientation(order + entry) == orientation
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_header(jpeg(exif=exif)).orientation == orientation


@given(st.binary(max_size=64))
def test_damaged_exif_is_no_orientation(noise: bytes) -> None:
    assert 1 <= exif_orientation(b"II*\0" + noise) <= 8


def test_every_cut_is_found() -> None:
    data = jpeg(progressive=True)
    for length in range(2, len(data)):
        with pytest.raises(JpegError):
            read_header(data[:length])


@given(st.binary(max_size=200))
def test_noise_after_the_start_mark_never_hangs_or_crashes(noise: bytes) -> None:
    try:
        read_header(b"\xff\xd8" + noise)
    except JpegError:
        pass


def test_stray_bytes_and_strange_markers_are_noticed() -> None:
    data = jpeg()
    table = data.index(b"\xff\xdb")
    assert read_header(data[:table] + b"\0\0\0" + data[table:]).stray_bytes == 3
    assert read_header(data[:table] + b"\xff\xff" + data[table:]).stray_bytes == 0
    with pytest.raises(JpegError, match="FF79"):
        read_header(data[:-40] + b"\xff\x79" + data[-38:])


@given(st.lists(st.sampled_from([0x00, 0x01, 0xD0, 0xD7, 0xD8, 0xD9, 0xFF]), max_size=40))
def test_the_end_of_a_scan_is_where_a_plain_search_finds_it(
    scan: list[int],
) -> None:
    data = b"before" + bytes(scan)
    found = re.search(rb"\xff[^\x00\xd0-\xd7\xff]", data[6:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markers, "WINDOW", 5)
        if found is None:
            with pytest.raises(JpegError, match="no end mark after the image data"):
                markers._skip_scan(data, 6, markers.JpegHeader())
        else:
            assert markers._skip_scan(data, 6, markers.JpegHeader()) == 6 + found.start()
