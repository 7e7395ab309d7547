"""Where masks come from: priors, a network, or (`ablation.py`) rules that look at no image.

A source is a small frozen value that pickles into any worker. `maps` of a list of images gives one
`Answer` each, and the same image gives the same answer whatever else is in the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fovea.pipeline import lookup
from fovea.pipeline.errors import UserError

from .picture import SETTINGS, Picture, PriorFailed, Setting, prepare
from .superpixels import Floats

PRIORS = "fovea.saliency.priors"
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """A map in [0, 1] of any size (H, W), the source's confidence in [0, 1] or NaN, and why the
    map is empty where the source failed."""

    saliency: Floats
    score: float
    failure: str = ""


class Source(Protocol):
    """What the job asks for masks."""

    def options(self) -> dict[str, Any]:
        """Plain values that the masks depend on, for the manifest."""

    def maps(self, images: Sequence[Image], ids: Sequence[int]) -> list[Answer]:
        """One answer for each (H, W, 3) RGB image; `ids` are their sample numbers."""


@dataclass(frozen=True)
class PriorSource:
    """One handcrafted prior, or the mean of several.

    The score of several is their agreement, 1 - 2 x the mean deviation between them; of one, how
    decided it is, mean |2 s - 1|.
    """

    priors: tuple[str, ...]
    setting: str = "batch"

    def __post_init__(self) -> None:
        if not self.priors:
            raise UserError(f"no prior given: have {', '.join(lookup.names(PRIORS))}")
        if self.setting not in SETTINGS:
            raise UserError(f"setting {self.setting!r}: have {', '.join(SETTINGS)}")
        for name in self.priors:
            lookup.load(PRIORS, name)

    def options(self) -> dict[str, Any]:
        """Names of the priors and of the setting."""
        return {"priors": list(self.priors), "setting": self.setting}

    def maps(self, images: Sequence[Image], ids: Sequence[int]) -> list[Answer]:
        """One answer per image."""
        del ids
        return [self._answer(image) for image in images]

    def _answer(self, image: Image) -> Answer:
        picture = prepare(image, SETTINGS[self.setting])
        maps = []
        for name in self.priors:
            try:
                maps.append(run_prior(lookup.load(PRIORS, name), picture))
            except PriorFailed as error:
                empty = np.zeros(picture.whole, np.float32)
                return Answer(empty, float("nan"), f"{name}: {error}")
        return Answer(mean(maps), confidence(maps))


def run_prior(prior: ModuleType, picture: Picture) -> Floats:
    """The prior's map of a picture.

    Raises:
        PriorFailed: it has no finite answer, or the picture is of one colour.
    """
    if picture.plain:
        raise PriorFailed("the picture is of one colour")
    try:
        saliency: Floats = prior.saliency(picture)
    except (np.linalg.LinAlgError, FloatingPointError, ZeroDivisionError) as error:
        raise PriorFailed(f"{type(error).__name__}: {error}") from error
    return saliency


def mean(maps: Sequence[Floats]) -> Floats:
    """Mean of maps of one shape, float32."""
    average: Floats = np.asarray(np.stack(maps).mean(axis=0, dtype=np.float64), np.float32)
    return average


def confidence(maps: Sequence[Floats]) -> float:
    """Agreement of several maps, or decidedness of one; in [0, 1]."""
    if len(maps) > 1:
        return float(1 - 2 * np.stack(maps).std(axis=0, dtype=np.float64).mean())
    return float(np.abs(2 * maps[0].astype(np.float64) - 1).mean())


def all_priors(image: Image, setting: Setting) -> dict[str, Floats]:
    """Every prior's map of an (H, W, 3) image by name; zeros where one fails."""
    picture = prepare(image, setting)
    maps = {}
    for name in lookup.names(PRIORS):
        try:
            maps[name] = run_prior(lookup.load(PRIORS, name), picture)
        except PriorFailed:
            maps[name] = np.zeros(picture.whole, np.float32)
    return maps


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal: names the weights that masks came from."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
