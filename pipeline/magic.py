"""What a file that is no readable image looks like, for the reason in the quarantine."""

from __future__ import annotations

from .jpeg import SOI

LOOK_AT = 4096  # bytes
JPEG_XL = "JPEG XL, for which there is no decoder here; convert it first, e.g. with 'djxl'"
ODD_TIFF = "a TIFF of a kind that no decoder here reads; convert it to 8 or 16 bits"
STARTS = (
    (SOI, "a JPEG of a kind that no decoder here reads"),
    (b"\x89PNG", "a damaged PNG header"),
    (b"GIF8", "a damaged GIF header"),
    (b"II*\0", ODD_TIFF),
    (b"MM\0*", ODD_TIFF),
    (b"\xff\x0a", JPEG_XL),
    (b"\0\0\0\x0cJXL ", JPEG_XL),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript program"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"PF", "a float map (PFM)"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the real file with 'git lfs pull'"),
)
HEIC = "HEIC, for which there is no decoder here; convert it first, e.g. with 'heif-convert'"
HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}


def describe(data: bytes) -> str:
    """Why bytes are not an image of a known format, as far as their start tells."""
    words = _likeness(data)
    return "not an image of a known format" + (f": {words}" if words else "")


def _likeness(data: bytes) -> str:
    for start, words in STARTS:
        if data.startswith(start):
            return words
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        return HEIC
    head = data[:LOOK_AT].lstrip().lower()
    if b"<svg" in head:
        return "an SVG drawing"
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (a failed download?)"
    at = data.find(SOI + b"\xff", 0, LOOK_AT)
    if at > 0:
        return f"a JPEG behind {at} other bytes"
    return ""
