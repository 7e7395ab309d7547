"""``fovea evaluate knn``: nearest neighbours, and what the same vote gives without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .evaluate_session import Common, Session, at_least

if TYPE_CHECKING:
    from torch import nn

    from fovea.training.evaluation.features import Features

SHOWN = 8  # neighbours kept of each query, for the report


@dataclass(frozen=True, kw_only=True)
class Knn(Common):
    """k-nearest-neighbour accuracy: no training, exact cosine search."""

    k: tuple[int, ...] = (1, 20)
    """Numbers of neighbours."""
    baselines: bool = False
    """Also score the same network untrained (the run's own initial weights) and raw pixels."""
    queries: int = 6
    """Validation images whose neighbours the report shows."""


def evaluate(args: Knn) -> int:
    """Scores, saves, prints."""
    from fovea.pipeline.errors import UserError
    from fovea.training.evaluation import knn
    from fovea.training.evaluation.results import Result

    at_least(1, args, "k")
    at_least(0, args, "queries")
    session = Session(args)
    session.check_classes()
    if max(args.k) > len(session.train):
        raise UserError(
            f"--k {max(args.k)}: want at most {len(session.train)}, the images of --train"
        )
    fresh = session.trained.fresh() if args.baselines else None
    train = session.features(session.train, "training features")
    val = session.features(session.val, "validation features")
    rows = {"trained": _scores(train, val, args, session.device)}
    if fresh:
        rows |= _baselines(args, session, fresh)
    result = Result(
        protocol="knn",
        rows=rows,
        options={"image_px": session.image_px, "temperature": knn.TEMPERATURE},
        extra={"neighbours": _neighbours(train, val, args, session.device)},
        **session.circumstances(),
    )
    return session.finish(result)


def _scores(train: Features, val: Features, args: Knn, device: str) -> dict[str, float]:
    from fovea.training.evaluation import knn

    weighted = knn.accuracies(train, val, args.k, device=device)
    plain = knn.accuracies(train, val, args.k, temperature=None, device=device)
    scores = {f"knn{k}": share for k, share in weighted.items()}
    return scores | {f"knn{k}_plain": share for k, share in plain.items() if k > 1}


def _baselines(args: Knn, session: Session, fresh: nn.Module) -> dict[str, dict[str, float]]:
    from fovea.training.evaluation.features import raw_pixels

    untrained = [
        session.features(data, f"untrained, {what}", fresh)
        for what, data in (("training", session.train), ("validation", session.val))
    ]
    pixels = [raw_pixels(data, min(16, session.image_px)) for data in (session.train, session.val)]
    return {
        "untrained": _scores(untrained[0], untrained[1], args, session.device),
        "raw pixels": _scores(pixels[0], pixels[1], args, session.device),
    }


def _neighbours(train: Features, val: Features, args: Knn, device: str) -> dict[str, Any]:
    import numpy as np

    from fovea.training.evaluation import knn

    count = min(args.queries, len(val))
    rows = np.array([int((i + 0.5) * len(val) / count) for i in range(count)], np.int64)
    k = min(SHOWN, len(train))
    cosine, found = knn.neighbours(train.features, val.features[rows], k, device=device)
    return {
        "queries": val.ids[rows].tolist(),
        "ids": train.ids[found.cpu().numpy()].tolist(),
        "similarity": [[round(float(c), 4) for c in row] for row in cosine],
    }
