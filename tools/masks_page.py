"""A page of masks that sorts by coverage and by how much the priors disagree.

One self-contained HTML file: every sample is a row of pictures with its figures, and the bad masks
come first whichever way it is sorted.
"""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fovea.pipeline.decode import DecodeError, decode_rgb
from fovea.pipeline.files import write_atomic
from fovea.pipeline.store import MaskSet, ShardSet
from fovea.saliency.masks import decode
from fovea.saliency.picture import SETTINGS
from fovea.saliency.pictures import row
from fovea.saliency.sources import all_priors

HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Masks</title><style>
body{font:14px/1.4 system-ui,sans-serif;margin:1.5rem;max-width:1100px}
button{font:inherit;margin-right:.5rem;padding:.3rem .7rem}
figure{margin:0 0 .8rem;border-top:1px solid #ccc;padding-top:.5rem}img{max-width:100%}
figcaption{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}.bad{color:#a00}
</style>"""
SCRIPT = """<script>
function order(key,sign){const box=document.getElementById('rows');
[...box.children].sort((a,b)=>sign*(a.dataset[key]-b.dataset[key])).forEach(x=>box.append(x));}
</script>"""


def write(
    images: ShardSet, masks: MaskSet, path: Path, *, limit: int = 200, priors: bool = False
) -> int:
    """Write the page of up to `limit` masks to `path`; returns how many it shows.

    It takes the ends of both orders, where bad masks are, and random ones in between.

    Args:
        images: the photographs.
        masks: their masks.
        path: of the page.
        limit: of rows.
        priors: show each prior too, computed again (about 50 ms an image).
    """
    ids = chosen(np.asarray(masks.samples["coverage"]), np.asarray(masks.samples["score"]), limit)
    rows = "".join(_figure(images, masks, int(sample_id), priors) for sample_id in ids)
    first = "Image, each prior, mask, background removed." if priors else "Image, mask, object."
    page = (
        f"{HEAD}<h1>{len(ids)} of {len(masks)} masks</h1><p>{first} Red: covers less than 5 %,"
        " so training does not use it.</p><p>"
        "<button onclick=\"order('coverage',1)\">least coverage</button>"
        "<button onclick=\"order('coverage',-1)\">most coverage</button>"
        "<button onclick=\"order('score',1)\">most disagreement</button>"
        "<button onclick=\"order('score',-1)\">least disagreement</button></p>"
        f'<div id="rows">{rows}</div>{SCRIPT}</html>\n'
    )
    write_atomic(path, page.encode())
    return len(ids)


def chosen(
    coverage: NDArray[np.float32], score: NDArray[np.float32], limit: int
) -> NDArray[np.int64]:
    """Which samples to show: both ends of coverage, the low end of score, then random ones;
    in the order of their score, the most doubtful first."""
    part = max(1, limit // 4)
    by_coverage, by_score = np.argsort(coverage, kind="stable"), np.argsort(score, kind="stable")
    rest = np.random.default_rng(0).permutation(len(coverage))
    wanted = [by_coverage[:part], by_coverage[::-1][:part], by_score[:part], rest]
    unique = dict.fromkeys(np.concatenate(wanted).tolist())
    ids = np.array(list(unique)[:limit], np.int64)
    return ids[np.argsort(score[ids], kind="stable")]


def _figure(images: ShardSet, masks: MaskSet, sample_id: int, priors: bool) -> str:
    figures = masks.samples[sample_id]
    share, score = float(figures["coverage"]), float(figures["score"])
    try:
        rgb = decode_rgb(images.read(sample_id))
    except DecodeError:
        rgb = np.zeros((64, 64, 3), np.uint8)
    maps = list(all_priors(rgb, SETTINGS["batch"]).values()) if priors else []
    picture = row(rgb, [*maps, decode(masks.read(sample_id))])
    data = base64.b64encode(_jpeg(picture)).decode()
    doubt = "" if math.isnan(score) else f", agreement {score:.3f}"
    bad = ' class="bad"' if share < 0.05 else ""
    return (
        f'<figure data-coverage="{share:.5f}" data-score="{0 if math.isnan(score) else score:.5f}">'
        f'<img alt="" src="data:image/jpeg;base64,{data}"><figcaption{bad}>'
        f"{html.escape(images.path_of(sample_id))}: covers {100 * share:.1f} %{doubt}"
        "</figcaption></figure>"
    )


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of shape {rgb.shape}")
    return bytes(data)
