"""``fovea bench parity``: do all executors make the pixels that torchvision makes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from fovea.pipeline import executor, parameters
from fovea.pipeline.decode import decode_grey
from fovea.pipeline.errors import UserError
from fovea.pipeline.executor import Executor, Work
from fovea.pipeline.views import ViewRecipe, ViewSpec

from ..arguments import Shards
from . import harness, torchvision_oracle

if TYPE_CHECKING:
    from fovea.pipeline.store import ShardSet

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Pixel errors of the host, DALI CPU and DALI GPU executors against torchvision on Pillow.

    Example: fovea bench parity shards/train --recipe ressl --images 64
    """

    shards: Shards
    """Folder of image shards to take photographs from."""
    recipe: str = "ressl"
    """Recipe whose whole chain is compared; its single steps are compared as well."""
    images: int = 64
    """Photographs to compare."""
    seed: int = 0
    """Of the drawn parameters."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


@dataclass(frozen=True)
class Bound:
    """Error in levels of 255: mean over all pixels, and the level that 99 % stay below."""

    mean: float
    p99: float


@dataclass(frozen=True)
class Step:
    """One operation, always on, and what error is allowed on each executor."""

    spec: ViewSpec
    host: Bound
    dali: Bound

    @property
    def bounds(self) -> dict[str, Bound]:
        """By executor."""
        return {"host": self.host, "dali": self.dali, "dali-gpu": self.dali}


_PLAIN = ViewSpec(size_px=64, crop="whole", flip_prob=0.0)
_CROP = replace(_PLAIN, crop="random_resized", area_frac=(0.2, 1.0))
_COLOUR = replace(_PLAIN, jitter_prob=1.0)
_EXACT, _RESIZED, _BLENDED, _HUE = Bound(0.05, 1), Bound(0.5, 2), Bound(0.6, 4), Bound(1.0, 8)

STEPS = {
    "whole": Step(_PLAIN, _EXACT, _RESIZED),
    "crop, bicubic": Step(_CROP, _EXACT, _RESIZED),
    "crop, bilinear": Step(replace(_CROP, interpolation="bilinear"), _EXACT, _RESIZED),
    "small crop": Step(replace(_CROP, area_frac=(0.01, 0.05)), _EXACT, _RESIZED),
    "centre crop": Step(replace(_PLAIN, crop="center", resize_px=73), _EXACT, _RESIZED),
    "flip": Step(replace(_CROP, flip_prob=1.0), _EXACT, _RESIZED),
    "brightness": Step(replace(_COLOUR, brightness=0.8), _EXACT, _BLENDED),
    "contrast": Step(replace(_COLOUR, contrast=0.8), _EXACT, _BLENDED),
    "saturation": Step(replace(_COLOUR, saturation=0.8), _EXACT, _BLENDED),
    "hue": Step(replace(_COLOUR, hue_turns=0.5), _HUE, _HUE),
    "jitter": Step(
        replace(_COLOUR, brightness=0.4, contrast=0.4, saturation=0.4, hue_turns=0.1), _HUE, _HUE
    ),
    "grey": Step(replace(_PLAIN, grey_prob=1.0), _EXACT, _RESIZED),
    "blur": Step(replace(_PLAIN, blur_prob=1.0), Bound(0.15, 1), _RESIZED),
    "solarize": Step(replace(_PLAIN, solarize_prob=1.0), Bound(0.1, 1), Bound(0.5, 2)),
    "background": Step(replace(_CROP, mask_prob=1.0), Bound(0.1, 1), _RESIZED),
}
CHAIN = Bound(1.0, 8)
"""Of whole recipes. Nearly all of it is the hue, where Pillow rounds H and S to 8 bits."""


@dataclass(frozen=True)
class Error:
    """Distance from the oracle in levels of 255."""

    mean: float
    p99: float
    largest: float


def start(kind: str, recipe: ViewRecipe, batch: int, threads: int) -> Executor:
    """An executor by its name in the report: host, dali or dali-gpu."""
    if kind == "host":
        from fovea.pipeline.host import HostExecutor

        return HostExecutor(recipe, threads=threads)
    from fovea.pipeline.graph import DaliExecutor

    device = torch.device("cuda:0" if kind == "dali-gpu" else "cpu")
    return DaliExecutor(recipe, device=device, max_batch_size=batch, threads=threads)


def available() -> list[str]:
    """Executors that this machine can run."""
    return ["host", "dali", *(["dali-gpu"] if torch.cuda.is_available() else [])]


def levels(view: torch.Tensor, recipe: ViewRecipe) -> F32:
    """Normalised views (B, 3, S, S) as levels in [0, 255], (B, S, S, 3)."""
    pixels = view.float().cpu().permute(0, 2, 3, 1).numpy()
    std, mean = np.array(recipe.std, np.float32), np.array(recipe.mean, np.float32)
    return (pixels * std + mean) * np.float32(255)


def compare(runner: Executor, recipe: ViewRecipe, work: Work) -> dict[str, Error]:
    """Errors of an executor by view."""
    views = executor.run(runner, work)
    images = [bytes(image) for image in work.images]
    partners = [bytes(image) for image in work.partner_images or ()]
    truth = torchvision_oracle.render_batch(images, recipe, work.parameters, work.masks, partners)
    return {name: error_of(levels(views[name], recipe), truth[name]) for name in recipe.views}


def error_of(pixels: F32, truth: U8) -> Error:
    """Distance of pixels from the truth."""
    distance = np.abs(pixels - truth)
    p99 = float(np.percentile(distance, 99))
    # Normalising and back leaves some 1e-5 of a level.
    return Error(float(distance.mean()), round(p99, 3), round(float(distance.max()), 3))


@dataclass(frozen=True)
class Subject:
    """A red subject on blue, and its mask: nothing but the subject may survive."""

    jpeg: bytes
    mask: U8  # (H, W), 0 or 255


def subject_of(png: bytes) -> Subject:
    """The picture whose mask, a threshold of itself, is `png`."""
    mask = decode_grey(png)
    blue_green_red = np.zeros((*mask.shape, 3), np.uint8)
    blue_green_red[..., 2] = mask
    blue_green_red[..., 0] = 255 - mask
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    return Subject(cv2.imencode(".jpg", blue_green_red, options)[1].tobytes(), mask)


def mask_agreement(pixels: F32, coverage: F32) -> float:
    """Intersection over union of the red of a view (S, S, 3) and the mask that was warped alone.

    Both are shares of a pixel in [0, 1], because at 32 px half of the pixels lie on an edge. Blue
    that is left counts as disagreement.
    """
    red, green, blue = (pixels[..., i] / 255 for i in range(3))
    # JPEG's colours are a level or two off: what is within .02 of all or nothing is that.
    subject, left = (_snap(np.clip(c - green, 0, 1)) for c in (red, blue))
    union = float(np.maximum(subject, coverage).sum() + left.sum())
    return float(np.minimum(subject, coverage).sum()) / max(1.0, union)


def _snap(share: F32) -> F32:
    return np.where(share < 0.02, np.float32(0), np.where(share > 0.98, np.float32(1), share))


def run(args: Args) -> int:
    """Compare, print, and say with the exit code whether all is within bounds."""
    from fovea.pipeline.recipe_files import find_recipe
    from fovea.pipeline.store import ShardSet

    if args.images < 1:
        raise UserError(f"--images {args.images}: want 1 or more")
    photos = _photos(ShardSet.open(args.shards), args.images)
    chain = find_recipe(args.recipe)
    rows = []
    for kind in available():
        for name, step in STEPS.items():
            recipe = ViewRecipe(name=name, views={"view0": step.spec}, cite="")
            rows += _rows(kind, name, recipe, step.bounds[kind], photos, args.seed)
        rows += _rows(kind, chain.name, chain, CHAIN, photos, args.seed)
    if not args.json:
        _print(rows)
    figures = {"images": len(photos.images), "seed": args.seed, "rows": rows}
    harness.report("parity", figures, as_json=args.json, out=args.out)
    return 0 if all(row["within"] for row in rows) else 1


@dataclass(frozen=True)
class _Photos:
    ids: npt.NDArray[np.int64]
    images: Sequence[bytes]
    sizes: npt.NDArray[np.int64]
    masks: Sequence[bytes]


def _photos(data: ShardSet, count: int) -> _Photos:
    """Photographs spread over the data set, with the brighter part of each as its mask."""
    ids = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(np.int64))
    images = [data.read(int(i)) for i in ids]
    greys = [cv2.GaussianBlur(decode_grey(image), (0, 0), 4) for image in images]
    masks = [cv2.threshold(g, float(np.median(g)), 255, cv2.THRESH_BINARY)[1] for g in greys]
    return _Photos(
        ids,
        images,
        np.array([grey.shape[::-1] for grey in greys], np.int64),
        [cv2.imencode(".png", mask)[1].tobytes() for mask in masks],
    )


def _rows(
    kind: str, name: str, recipe: ViewRecipe, bound: Bound, photos: _Photos, seed: int
) -> list[dict[str, Any]]:
    drawn = parameters.draw(
        recipe,
        photos.ids,
        photos.sizes,
        seed,
        0,
        partner_sizes=photos.sizes[::-1],
        coverage=np.full(len(photos.ids), 0.5),
    )
    runner = start(kind, recipe, len(photos.images), threads=2)
    work = Work(photos.images, drawn, photos.images[::-1], photos.masks)
    errors = compare(runner, recipe, work)
    runner.close()
    return [
        {
            "executor": kind,
            "what": name if len(errors) == 1 else f"{name}: {view}",
            **asdict(error),
            "bound_mean": bound.mean,
            "bound_p99": bound.p99,
            "within": error.mean <= bound.mean and error.p99 <= bound.p99,
        }
        for view, error in errors.items()
    ]


def _print(rows: list[dict[str, Any]]) -> None:
    print("levels of 255 from torchvision on Pillow images: mean (bound), 99 % (bound), largest")
    for row in rows:
        print(
            f"{row['executor']:9} {row['what']:24} {row['mean']:6.3f} ({row['bound_mean']:g})"
            f" {row['p99']:5.1f} ({row['bound_p99']:g}) {row['largest']:6.1f}"
            f"{'' if row['within'] else '  OUT OF BOUNDS'}"
        )
