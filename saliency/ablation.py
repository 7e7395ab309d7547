"""Masks that are wrong on purpose: ReLICv2's ablations (appendix H.2, tables 16 and 17).

They answer how much the quality of masks matters: random pixels, random and centred rectangles
look at no image; corrupted masks and bounding boxes spoil an existing set of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fovea.pipeline.errors import UserError
from fovea.pipeline.store import MaskSet, ShardSet

from .masks import decode
from .sources import Answer, Image
from .superpixels import Floats

Rule = Literal["pixels", "rectangle", "centred_rectangle", "add", "remove", "box"]
RULES: tuple[Rule, ...] = ("pixels", "rectangle", "centred_rectangle", "add", "remove", "box")
SPOILS: tuple[Rule, ...] = ("add", "remove", "box")


@dataclass(frozen=True)
class AblationSource:
    """Masks by a rule.

    ``pixels``: each pixel by itself; ``rectangle``, ``centred_rectangle``: of the image's shape,
    anywhere or in the middle; all three cover `area_frac` of the image. ``add``, ``remove``: a
    rectangle at the image's centre, of `area_frac` of the mask's area, is added or cut out;
    ``box``: the bounding box of the mask. The last three spoil the masks in `base`.

    Random numbers are keyed by (`seed`, sample), so that any worker draws the same.
    """

    rule: Rule
    area_frac: float = 0.5
    seed: int = 0
    images: Path | None = None
    base: Path | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"ablation {self.rule!r}: have {', '.join(RULES)}")
        if not 0 < self.area_frac <= 1:
            raise UserError(f"area {self.area_frac}: want a share above 0, at most 1")
        if self.rule in SPOILS and (self.base is None or self.images is None):
            raise UserError(f"ablation {self.rule}: spoils masks; give their folder with --base")

    def options(self) -> dict[str, Any]:
        """Rule, area, seed and the checksum of the spoilt masks."""
        values: dict[str, Any] = {"ablation": self.rule, "area_frac": self.area_frac}
        if self.base is not None and self.images is not None:
            with ShardSet.open(self.images) as images, MaskSet.open(self.base, images) as masks:
                return {**values, "base": masks.manifest.checksum}
        return {**values, "seed": self.seed}

    def maps(self, images: Sequence[Image], ids: Sequence[int]) -> list[Answer]:
        """One mask per image, of the image's size or the spoilt mask's."""
        if self.rule in SPOILS:
            return [Answer(mask, float("nan")) for mask in self._spoilt(ids)]
        return [
            Answer(drawn(self.rule, image.shape[:2], self.area_frac, self.seed, one), float("nan"))
            for image, one in zip(images, ids, strict=True)
        ]

    def _spoilt(self, ids: Sequence[int]) -> list[Floats]:
        assert self.images is not None and self.base is not None
        with ShardSet.open(self.images) as images, MaskSet.open(self.base, images) as masks:
            return [spoil(self.rule, decode(masks.read(one)), self.area_frac) for one in ids]


def drawn(rule: Rule, size: tuple[int, ...], area_frac: float, seed: int, sample_id: int) -> Floats:
    """A mask (H, W) that looks at no image; see `AblationSource`."""
    random = np.random.default_rng([seed, sample_id])
    height, width = size
    if rule == "pixels":
        return (random.random((height, width)) < area_frac).astype(np.float32)
    tall, wide = (max(1, round(side * area_frac**0.5)) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    if rule == "rectangle":
        top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
    mask = np.zeros((height, width), np.float32)
    mask[top : top + tall, left : left + wide] = 1
    return mask


def spoil(rule: Rule, mask: Floats, area_frac: float) -> Floats:
    """A spoilt copy of a mask (H, W) in [0, 1]; see `AblationSource`."""
    inside = mask > 0.5
    out = mask.copy()
    if not inside.any():
        return out
    if rule == "box":
        rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        out[:] = 0
        out[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] = 1
        return out
    height, width = mask.shape
    side = (area_frac * inside.mean()) ** 0.5
    tall, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = (height - tall) // 2, (width - wide) // 2
    out[top : top + tall, left : left + wide] = 1 if rule == "add" else 0
    return out
