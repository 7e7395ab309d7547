"""Reading the markers of a JPEG file (ITU-T T.81, annex B), without decoding it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np

SOI = b"\xff\xd8"
EOI = 0xD9
SOS = 0xDA
DNL = 0xDC
APP1 = 0xE1
APP2 = 0xE2
APP14 = 0xEE
COM = 0xFE
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 ... SOF15 without DHT, JPG, DAC
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # TEM, RST0 ... RST7
SEGMENTS = {0xC4, 0xCC, 0xDB, SOS, DNL, 0xDD, COM, *range(0xE0, 0xF0)} | FRAMES
FRAME_SIZE = struct.Struct(">HH")
SEGMENT = struct.Struct(">BBH")  # FF, marker, length with its own two bytes
SKIPPED = SEGMENTS - FRAMES - {SOS, APP1, APP2, APP14}  # nothing in them is looked at
ORIENTATION_TAG = 0x0112
LONG = 4  # TIFF field type
SCAN_LIMIT = 1000  # a progressive file of more scans is an attack on the decoder's time

# In entropy-coded data FF is followed by 00 (stuffing), by a restart number, or by another FF.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
WINDOW = 1 << 17  # bytes searched at a time, so that many short scans cost no more than one long


class JpegError(ValueError):
    """The markers do not describe a whole JPEG image."""


@dataclass
class JpegHeader:
    """What the markers say about the first image in the file."""

    process: int = -1  # low four bits of the frame marker: 0, 1 sequential, 2 progressive, ...
    precision_bits: int = 0
    width: int = 0
    height: int = 0
    components: int = 0
    component_ids: bytes = b""
    sampling: tuple[tuple[int, int], ...] = ()  # (horizontal, vertical) of each component
    adobe_transform: int | None = None  # None: no Adobe marker
    orientation: int = 1  # EXIF, 1 ... 8
    scans: int = 0
    stray_bytes: int = 0  # between segments, where there should be none
    multi_picture: list[tuple[int, int]] = field(default_factory=list)  # spans of MPF segments
    end: int = 0  # byte after the end mark


def read_header(data: bytes) -> JpegHeader:
    """Parse `data` up to the end mark of its first image.

    Raises:
        JpegError: no JPEG, cut off before its end mark, or markers that make no sense.
    """
    if data[:2] != SOI:
        raise JpegError("no start mark")
    header, at, last = JpegHeader(), 2, len(data)
    while True:
        if at + 4 <= last:
            lead, marker, length = SEGMENT.unpack_from(data, at)
            if lead == 0xFF and marker in SKIPPED and length >= 2 and at + 2 + length <= last:
                at += 2 + length
                continue
        marker, at = _next_marker(data, at, header)
        if marker == EOI:
            break
        if marker in STANDALONE:
            continue
        at = _read_segment(data, marker, at, header)
    if not header.components or not header.scans:
        raise JpegError("no image data before the end mark")
    header.end = at
    return header


def _next_marker(data: bytes, at: int, header: JpegHeader) -> tuple[int, int]:
    pair = data[at : at + 2]
    if len(pair) == 2 and pair[0] == 0xFF and pair[1] not in (0x00, 0xFF):  # as it should be
        return pair[1], at + 2
    start = data.find(b"\xff", at)
    while 0 <= start < len(data) - 1 and data[start + 1] in (0x00, 0xFF):
        start = data.find(b"\xff", start + 1)
    if not 0 <= start < len(data) - 1:
        raise JpegError("truncated: no end mark")
    header.stray_bytes += len(data[at:start].strip(b"\xff"))  # FF before a marker is legal fill
    return data[start + 1], start + 2


def _read_segment(data: bytes, marker: int, at: int, header: JpegHeader) -> int:
    """Note what the segment at `at` says; returns where the next marker is looked for."""
    if marker not in SEGMENTS:
        raise JpegError(f"damaged: marker FF{marker:02X} at byte {at - 2} means nothing")
    length = int.from_bytes(data[at : at + 2], "big")
    if length < 2 or at + length > len(data):
        raise JpegError(f"truncated or damaged: segment FF{marker:02X} runs past the end")
    body = data[at + 2 : at + length]
    if marker in FRAMES:
        _read_frame(marker, body, header)
    elif marker == APP14 and body[:5] == b"Adobe" and len(body) >= 12:
        header.adobe_transform = body[11]
    elif marker == APP1 and body[:6] == b"Exif\0\0" and header.orientation == 1:
        header.orientation = exif_orientation(body[6:])
    elif marker == APP2 and body[:4] == b"MPF\0":
        header.multi_picture.append((at - 2, at + length))
    elif marker == SOS:
        return _skip_scan(data, at + length, header)
    return at + length


def _skip_scan(data: bytes, at: int, header: JpegHeader) -> int:
    header.scans += 1
    if header.scans > SCAN_LIMIT:
        raise JpegError(f"more than {SCAN_LIMIT} scans")
    while at < len(data) - 1:
        # numpy skips stuffed bytes twice as fast as `re`; without restart marks that is all.
        window = np.frombuffer(data, np.uint8, min(WINDOW, len(data) - at), at)
        marks = (window[:-1] == 0xFF) & (window[1:] != 0)
        first = int(marks.argmax())
        if marks[first]:
            found = _SCAN_END.search(data, at + first)
            if found is None:
                break
            return found.start()
        at += len(window) - 1
    raise JpegError("truncated: no end mark after the image data")


def _read_frame(marker: int, body: bytes, header: JpegHeader) -> None:
    if header.components:
        raise JpegError("two frames: hierarchical JPEG")
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        raise JpegError("damaged: frame header too short")
    header.process = marker & 15
    header.precision_bits = body[0]
    header.height, header.width = FRAME_SIZE.unpack_from(body, 1)
    header.components = body[5]
    stop = 6 + 3 * body[5]
    header.component_ids = body[6:stop:3]
    header.sampling = tuple([(factor >> 4, factor & 15) for factor in body[7:stop:3]])


def exif_orientation(tiff: bytes) -> int:
    """Orientation (1 ... 8) in the TIFF block of EXIF data; 1 where it is absent or damaged."""
    little = tiff[:4] == b"II*\0"
    if not little and tiff[:4] != b"MM\0*":
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if little else "big")

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if entry + 12 > len(tiff):
            return 1
        if number(entry, 2) == ORIENTATION_TAG:
            value = number(entry + 8, 4 if number(entry + 2, 2) == LONG else 2)
            return value if 1 <= value <= 8 else 1
    return 1
