"""Masks that are wrong on purpose are wrong in exactly the stated way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fovea.pipeline.errors import UserError
from fovea.saliency.ablation import AblationSource, drawn, spoil


def blob() -> np.ndarray:
    mask = np.zeros((40, 60), np.float32)
    mask[4:20, 10:40] = 0.9
    mask[6, 12] = 0.2
    return mask


@pytest.mark.parametrize("area", [0.1, 0.5, 0.9])
def test_drawn_masks_cover_their_share(area: float) -> None:
    pixels = drawn("pixels", (80, 100), area, 0, 3)
    assert pixels.mean() == pytest.approx(area, abs=0.03)
    for rule in ("rectangle", "centred_rectangle"):
        mask = drawn(rule, (80, 100), area, 0, 3)
        rows, cols = np.nonzero(mask)
        assert mask.mean() == pytest.approx(area, abs=0.02)
        assert mask[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].all()
    assert rows.min() + rows.max() == pytest.approx(79, abs=1)
    assert cols.min() + cols.max() == pytest.approx(99, abs=1)


def test_draws_are_keyed_by_seed_and_sample() -> None:
    def corner(seed: int, sample: int) -> tuple[int, int]:
        rows, cols = np.nonzero(drawn("rectangle", (50, 50), 0.2, seed, sample))
        return int(rows.min()), int(cols.min())

    assert corner(0, 1) == corner(0, 1)
    assert len({corner(0, sample) for sample in range(12)}) > 8
    assert corner(0, 1) != corner(1, 1)


def test_box() -> None:
    got = spoil("box", blob(), 0.5)
    assert got[4:20, 10:40].all() and got.sum() == 16 * 30


@pytest.mark.parametrize(("rule", "value"), [("add", 1), ("remove", 0)])
def test_rectangle_added_or_removed_at_the_centre(rule: str, value: int) -> None:
    mask = blob()
    got = spoil(rule, mask, 0.5)
    changed = np.zeros(mask.shape, bool)
    side = (0.5 * (mask > 0.5).mean()) ** 0.5
    tall, wide = round(40 * side), round(60 * side)
    changed[(40 - tall) // 2 :][:tall, (60 - wide) // 2 :][:, :wide] = True
    assert (got[changed] == value).all()
    np.testing.assert_array_equal(got[~changed], mask[~changed])
    assert changed.sum() == pytest.approx(0.5 * (mask > 0.5).sum(), rel=0.1)


def test_empty_mask_stays_empty() -> None:
    empty = np.zeros((9, 9), np.float32)
    for rule in ("box", "add", "remove"):
        assert not spoil(rule, empty, 0.5).any()


def test_wrong_options() -> None:
    with pytest.raises(UserError, match="have pixels, rectangle"):
        AblationSource("stripes")
    with pytest.raises(UserError, match=r"area 1\.5"):
        AblationSource("pixels", 1.5)
    with pytest.raises(UserError, match="--base"):
        AblationSource("box", images=Path("x"))
