"""``fovea bench masks``: scores and cost of saliency masks on images with ground truth."""

from __future__ import annotations

import importlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from fovea.pipeline import lookup
from fovea.pipeline.decode import decode_grey, decode_rgb
from fovea.pipeline.errors import UserError
from fovea.saliency.picture import SETTINGS, prepare
from fovea.saliency.score import score
from fovea.saliency.sources import PRIORS, mean, run_prior
from fovea.saliency.superpixels import Floats
from fovea.saliency.threads import one_thread

from .harness import report

QUICK_PRIORS = ("robust_background", "manifold_ranking", "markov_chain")
Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Score every prior, their mean and a network; processor time on one core beside it.

    Example: fovea bench masks ecssd/images ecssd/masks --network saliency/network.pt
    """

    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """Folder of photographs (.jpg)."""
    truth: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TRUTH")]
    """Folder of their masks (.png of the same name, white is object)."""
    settings: tuple[str, ...] = ("full", "batch")
    """Of the priors; none scores the network alone."""
    network: Path | None = None
    """network.pt of 'fovea refine'."""
    limit: int = 0
    """Use the first images only; 0 takes all."""
    crf: bool = False
    """Time the dense CRF too."""
    json: bool = False
    """Print JSON."""
    out: Path | None = None
    """Write the JSON here too."""


def run(args: Args) -> int:
    """Measure and report."""
    pairs = _pairs(args)
    figures: dict[str, Any] = {"images": len(pairs), "clock": "processor time of one thread"}
    if args.network is not None or args.crf:
        importlib.import_module("torch")  # `one_thread` limits what is there
    with one_thread():
        for name in args.settings:
            figures[name] = _priors(pairs, name)
        if args.network is not None:
            figures["network"] = _network(pairs, args.network)
            figures["network"] |= _job(args)
        if args.crf:
            figures["dense CRF, ms an image"] = _crf(pairs[:8])
    report("masks", figures, as_json=args.json, out=args.out)
    if not args.json:
        _print(figures)
    return 0


def _print(figures: dict[str, Any]) -> None:
    """Costs and scores as lines."""
    for name, part in figures.items():
        if not isinstance(part, dict):
            print(f"{name}: {part}")
            continue
        costs = {key: value for key, value in part.items() if not isinstance(value, dict)}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in costs.items()))
        for key in ("scores", "bare_scores"):
            rows = part.get(key, {})
            for row, values in rows.items() if key == "scores" and name != "network" else []:
                print(f"  {row:28} " + "  ".join(f"{k} {v:.3f}" for k, v in values.items()))
            if rows and name == "network":
                print(f"  {key:28} " + "  ".join(f"{k} {v:.3f}" for k, v in rows.items()))


def _pairs(args: Args) -> list[Pair]:
    """Images and their truths, decoded.

    Raises:
        UserError: there are none, or a truth is missing.
    """
    paths = sorted(args.images.glob("*.jpg"))[: args.limit or None]
    if not paths:
        raise UserError(f"{args.images}: no .jpg in it; give a folder of photographs")
    pairs = []
    for path in paths:
        truth = args.truth / f"{path.stem}.png"
        if not truth.exists():
            raise UserError(f"{truth}: missing; every image wants its mask")
        pairs.append((decode_rgb(path.read_bytes()), decode_grey(truth.read_bytes()) > 127))
    return pairs


def _priors(pairs: list[Pair], setting: str) -> dict[str, Any]:
    """Scores of each prior and their mean; milliseconds an image, superpixels included.

    The three quick priors are timed together and in front, so that the fourth pays only for what
    it adds.
    """
    if setting not in SETTINGS:
        raise UserError(f"setting {setting!r}: have {', '.join(SETTINGS)}")
    names = [*QUICK_PRIORS, *(n for n in lookup.names(PRIORS) if n not in QUICK_PRIORS)]
    maps: dict[str, list[Floats]] = {name: [] for name in [*names, "mean"]}
    clocks: list[list[float]] = []
    for rgb, truth in pairs:
        stamps = [time.process_time()]
        picture = prepare(rgb, SETTINGS[setting])
        found = []
        for name in names:
            found.append(run_prior(lookup.load(PRIORS, name), picture))
            stamps.append(time.process_time())
        clocks.append(
            [1e3 * (stamps[len(QUICK_PRIORS)] - stamps[0]), 1e3 * (stamps[-1] - stamps[0])]
        )
        for name, saliency in zip([*names, "mean"], [*found, mean(found)], strict=True):
            maps[name].append(_fit(saliency, truth))
    scores = {name: _score(maps[name], pairs) for name in maps}
    quick, every = np.median(clocks, axis=0)
    return {"scores": scores, "three_quick_ms": round(quick, 1), "all_ms": round(every, 1)}


def _network(pairs: list[Pair], path: Path) -> dict[str, Any]:
    """Scores of the network as it leaves the job, and of its bare square maps."""
    import torch

    from fovea.saliency.guided import enlarge
    from fovea.saliency.predict import EDGE_SIDE_PX, predict_all
    from fovea.saliency.weights import load_network

    images = [rgb for rgb, _ in pairs]
    network = load_network(path).to(memory_format=torch.channels_last)  # as in the job
    squares = predict_all(network, images)
    middle = time.process_time()
    done = [enlarge(s, rgb, EDGE_SIDE_PX) for s, rgb in zip(squares, images, strict=True)]
    end = time.process_time()
    truths = [truth for _, truth in pairs]
    return {
        "edges_ms": round(1e3 * (end - middle) / len(pairs), 1),
        "scores": _score([_fit(m, t) for m, t in zip(done, truths, strict=True)], pairs),
        "bare_scores": _score([_fit(m, t) for m, t in zip(squares, truths, strict=True)], pairs),
    }


def _job(args: Args) -> dict[str, float]:
    """Processor milliseconds for an image of the mask job (decode, network, edges, PNG) and, in
    turn with it, of the network alone."""
    import torch

    from fovea.saliency.job import CHUNK
    from fovea.saliency.masks import encode, mask_size, quantise
    from fovea.saliency.predict import EDGE_SIDE_PX, NetworkSource, predict_all
    from fovea.saliency.weights import load_network

    assert args.network is not None
    source = NetworkSource.open(args.network, "cpu")
    network = load_network(args.network).to(memory_format=torch.channels_last)
    files = [path.read_bytes() for path in sorted(args.images.glob("*.jpg"))[: args.limit or None]]
    clocks = []
    for first in (0, *range(0, len(files), CHUNK)):  # once more at first, to warm up
        start = time.process_time()
        images = [decode_rgb(data) for data in files[first : first + CHUNK]]
        for rgb, answer in zip(images, source.maps(images, range(len(images))), strict=True):
            encode(quantise(answer.saliency, mask_size(rgb.shape[0], rgb.shape[1], EDGE_SIDE_PX)))
        middle = time.process_time()
        predict_all(network, images)
        end = time.process_time()
        clocks.append([1e3 * cost / len(images) for cost in (middle - start, end - middle)])
    job, forward = np.median(clocks[1:], axis=0)
    return {
        "job_ms": round(float(job), 1),
        "forward_ms": round(float(forward), 1),
        "job_of_forward_rate": round(float(forward / job), 3),
    }


def _crf(pairs: list[Pair]) -> dict[str, float]:
    """Processor milliseconds of five mean-field steps, by side and sources."""
    import torch

    from fovea.saliency.crf import refine
    from fovea.saliency.pseudo import square
    from fovea.saliency.settings import CrfOptions

    figures = {}
    for side, sources in ((64, 16), (128, 16), (432, 24)):
        rgb = torch.from_numpy(np.stack([square(rgb, side) for rgb, _ in pairs]))
        prob = torch.rand(len(pairs), side, side, generator=torch.Generator().manual_seed(0))
        planes = rgb.permute(0, 3, 1, 2)
        options = CrfOptions(sources=sources)
        refine(prob[:1], planes[:1], options)  # warm
        costs = []
        for number in range(len(pairs)):
            start = time.process_time()
            refine(prob[number : number + 1], planes[number : number + 1], options)
            costs.append(1e3 * (time.process_time() - start))
        figures[f"{side} px, {sources} sources a side"] = round(float(np.median(costs)), 1)
    return figures


def _fit(saliency: Floats, truth: NDArray[np.bool_]) -> Floats:
    """A map at the size of the truth."""
    height, width = truth.shape
    out = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(out, 0, 1).astype(np.float32)


def _score(maps: list[Floats], pairs: list[Pair]) -> dict[str, float]:
    values = asdict(score(zip(maps, (truth for _, truth in pairs), strict=True)))
    return {key: round(value, 4) for key, value in values.items() if key != "images"}
