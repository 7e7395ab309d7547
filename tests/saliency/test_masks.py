"""The mask codec: lossless, deterministic, readable by others."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fovea.saliency.masks import coverage, decode, encode, mask_size, quantise


def levels(height: int = 20, width: int = 31) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


def test_codec_is_lossless_and_8_bit_grey() -> None:
    data = encode(levels())
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG" and picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), levels())
    np.testing.assert_allclose(decode(data), levels() / 255, atol=1e-7)
    assert encode(levels()) == data


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 1024))
def test_mask_size_keeps_shape_and_never_enlarges(height: int, width: int, side: int) -> None:
    h, w = mask_size(height, width, side)
    assert 1 <= h <= height and 1 <= w <= width
    assert max(h, w) == min(side, max(height, width))
    assert abs(h - height * max(h, w) / max(height, width)) <= 1


def test_quantise_rounds_and_clips() -> None:
    got = quantise(np.array([[0.0, 0.499 / 255, 0.501 / 255, 1.2, -0.1]], np.float32), (1, 5))
    np.testing.assert_array_equal(got, [[0, 0, 1, 255, 0]])


def test_quantise_keeps_the_mean_when_it_shrinks() -> None:
    saliency = np.random.default_rng(1).uniform(size=(64, 96)).astype(np.float32)
    got = quantise(saliency, (16, 24))
    want = saliency.reshape(16, 4, 24, 4).mean(axis=(1, 3)) * 255
    np.testing.assert_allclose(got, want, atol=0.51)


def test_coverage_counts_above_half() -> None:
    assert coverage(np.array([[0, 127, 128, 255]], np.uint8)) == pytest.approx(0.5)
