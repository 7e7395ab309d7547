"""Windows of images against the same windows cut from images that were decoded whole."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fovea.pipeline import executor, windows
from fovea.pipeline.decode import DecodeError, decode_rgb
from fovea.pipeline.executor import Work
from fovea.pipeline.host import HostExecutor
from fovea.pipeline.parameters import draw
from fovea.pipeline.recipe_files import find_recipe
from fovea.pipeline.windows import Window, around, decode_window

needs_codec = pytest.mark.skipif(not windows.DECODES_WINDOWS, reason="nvImageCodec is not there")

SAMPLING = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def saved(image: np.ndarray, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(how.pop("mode", "RGB")).save(file, kind, **how)
    return file.getvalue()


@pytest.fixture(scope="module")
def photo(photos) -> np.ndarray:
    return decode_rgb(photos.images[2])


@needs_codec
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_window_has_the_pixels_of_the_whole_image(photo, sampling, progressive):
    rng = np.random.default_rng(len(sampling) + progressive)
    for _ in range(12):
        height, width = (int(rng.integers(9, side)) for side in photo.shape[:2])
        how = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[sampling]]
        how += [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        how += [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 100))]
        data = cv2.imencode(".jpg", photo[:height, :width], how)[1].tobytes()
        whole = decode_rgb(data)
        for _ in range(8):
            w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            window = decode_window(data, (x, y, w, h))
            assert window.pixels.shape == (h, w, 3)
            assert window.size_wh == (width, height)
            np.testing.assert_array_equal(window.cut((x, y, w, h)), whole[y : y + h, x : x + w])


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"mode": "CMYK"}),
        ("JPEG", {"restart_marker_blocks": 3}),
        ("PNG", {}),
        ("WEBP", {}),
    ],
    ids=["grey", "inks", "restarts", "png", "webp"],
)
def test_other_files_give_the_pixels_that_they_always_gave(photo, kind, how):
    data = saved(photo, kind, **how)
    box = (13, 7, 40, 31)
    np.testing.assert_array_equal(
        decode_window(data, box).cut(box), decode_rgb(data)[7 : 7 + 31, 13 : 13 + 40]
    )


def test_an_orientation_is_not_applied(photo):
    exif = Image.Exif()
    exif[0x112] = 6
    data = saved(photo, "JPEG", exif=exif)
    box = (5, 6, 50, 20)
    np.testing.assert_array_equal(decode_window(data, box).cut(box), decode_rgb(data)[6:26, 5:55])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8 no image", b"GIF89a"])
def test_what_is_no_image_is_an_error(data):
    with pytest.raises(DecodeError):
        decode_window(data, (0, 0, 1, 1))


def test_an_image_that_ends_inside_its_window_is_an_error(photo):
    data = saved(photo, "JPEG")
    height, width = photo.shape[:2]
    with pytest.raises(DecodeError):
        decode_window(data[: len(data) // 2], (0, 0, width, height))
    assert decode_window(data, (0, 0, width, height)).pixels.shape == photo.shape


def test_a_box_that_reaches_beyond_the_image_is_an_error(photo):
    height, width = photo.shape[:2]
    data = saved(photo, "JPEG")
    for box in [(1, 0, width, height), (0, 1, width, height), (width, height, 1, 1)]:
        with pytest.raises(ValueError, match="outside"):
            decode_window(data, box).cut(box)
        with pytest.raises(ValueError, match="outside"):
            Window.whole(photo).cut(box)


def test_slots_do_not_share_memory(photos):
    (one, other), box = photos.images[:2], (0, 0, 60, 60)
    first = decode_window(one, box, "self")
    kept = first.cut(box).copy()
    second = decode_window(other, box, "partner")
    np.testing.assert_array_equal(first.cut(box), kept)
    assert not np.array_equal(second.cut(box), kept)


def test_threads_do_not_share_memory(photos):
    box = (0, 0, 60, 60)

    def check(row: int) -> bool:
        data = photos.images[row % len(photos.images)]
        return np.array_equal(decode_window(data, box).cut(box), decode_rgb(data)[:60, :60])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(200)))


def test_around_is_the_smallest_box():
    assert around([(5, 6, 10, 2)]) == (5, 6, 10, 2)
    assert around([(5, 6, 10, 2), (0, 7, 3, 9)]) == (0, 6, 15, 10)


@needs_codec
@pytest.mark.parametrize("name", ["ressl", "relicv2", "adasim", "dino", "linear_train", "eval_224"])
def test_views_are_those_of_whole_images(photos, monkeypatch, name):
    recipe = find_recipe(name)
    sizes = photos.sizes
    drawn = draw(
        recipe, photos.ids, sizes, 3, 1, partner_sizes=sizes[::-1], coverage=photos.coverage
    )
    work = Work(photos.images, drawn, photos.images[::-1], photos.masks)

    def views() -> dict[str, torch.Tensor]:
        made = HostExecutor(recipe, threads=2)
        try:
            return {k: v.clone() for k, v in executor.run(made, work).items()}
        finally:
            made.close()

    some = views()
    monkeypatch.setattr(windows, "DECODES_WINDOWS", False)
    for view, want in views().items():
        assert torch.equal(some[view], want), view
