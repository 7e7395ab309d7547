"""Sources of masks: what they answer where there is nothing to find."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fovea.pipeline import lookup
from fovea.saliency.picture import SETTINGS
from fovea.saliency.sources import PRIORS, PriorSource, all_priors

NAMES = tuple(lookup.names(PRIORS))


@pytest.mark.parametrize("priors", [NAMES, NAMES[:1]], ids=["all", "one"])
@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_picture_of_one_colour_has_failed(priors: tuple[str, ...], level: int) -> None:
    """Each prior by itself would answer with the bias of its formulas, a blob in the middle."""
    rgb = np.full((40, 60, 3), level, np.uint8)
    rgb[::2, ::3] += 1 if level < 255 else 0  # what a codec leaves of one colour
    answer = PriorSource(priors).maps([rgb], [0])[0]
    assert "one colour" in answer.failure and math.isnan(answer.score)
    assert answer.saliency.shape == (40, 60) and not answer.saliency.any()
    assert not any(saliency.any() for saliency in all_priors(rgb, SETTINGS["batch"]).values())


def test_a_faint_object_has_not_failed() -> None:
    rgb = np.full((40, 60, 3), 100, np.uint8)
    rgb[12:28, 20:40] += 8
    answer = PriorSource(NAMES).maps([rgb], [0])[0]
    assert not answer.failure and answer.saliency[20, 30] > 0.5
