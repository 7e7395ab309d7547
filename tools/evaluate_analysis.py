"""``fovea evaluate analysis``: pictures and figures about the structure of the features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .evaluate_session import Common, Session


@dataclass(frozen=True, kw_only=True)
class Analysis(Common):
    """t-SNE, confused classes, discriminant ratios, neighbour and cluster grids: PNG and data."""

    images: int = 3000
    """Validation images for t-SNE and k-means, evenly spread; more are slow."""
    perplexity: float = 30.0
    """Of t-SNE."""
    clusters: int = 0
    """Of k-means; 0 takes the number of classes."""
    queries: int = 8
    """Rows of the neighbour grid."""
    seed: int = 0
    """Of t-SNE and k-means."""


def evaluate(args: Analysis) -> int:
    """Computes, draws into RUN/eval/analysis, saves, prints."""
    import numpy as np

    from fovea.training.evaluation import analysis, scores
    from fovea.training.evaluation.results import Result

    from . import evaluate_drawings as draw

    session = Session(args)
    train = session.features(session.train, "training features")
    val = session.features(session.val, "validation features")
    classes = scores.check_pair(train, val)
    count = min(args.images, len(val))
    some = val.take(np.array([int((i + 0.5) * len(val) / count) for i in range(count)]))
    folder = session.folder / "analysis"
    folder.mkdir(parents=True, exist_ok=True)
    names = list(val.class_names) or [f"class {c}" for c in range(classes)]
    clusters = analysis.kmeans(some, args.clusters or classes, seed=args.seed)
    ratios = analysis.discriminant_ratios(some)
    confusion = analysis.confusion(train, val, k=min(20, len(train)))
    at = analysis.tsne(some, perplexity=args.perplexity, seed=args.seed)
    draw.scatter(at, some.labels, names, folder / "tsne.png")
    draw.confusion(confusion, names, folder / "confusion.png")
    draw.histogram(ratios[np.isfinite(ratios)], "discriminant ratio", folder / "ratios.png")
    draw.grid(session.val, some.ids[clusters.nearest], folder / "clusters.png")
    _neighbour_grid(session, train, val, args, folder / "neighbours.png")
    np.savez(
        folder / "analysis.npz", tsne=at, labels=some.labels, ids=some.ids, ratios=ratios,
        confusion=confusion, clusters=clusters.assignment,
    )  # fmt: skip
    figures = {
        "cluster accuracy": clusters.accuracy,
        "NMI": clusters.nmi,
        "ARI": clusters.ari,
        "discriminant ratio": float(np.nanmedian(ratios)),
    }
    result = Result(
        protocol="analysis",
        rows={"trained": figures},
        options={"images": count, "clusters": int(clusters.assignment.max()) + 1},
        not_percent=tuple(figures),
        extra={"pictures": [f"analysis/{p.name}" for p in sorted(folder.glob("*.png"))]},
        **session.circumstances(),
    )
    return session.finish(result)


def _neighbour_grid(session: Session, train: Any, val: Any, args: Analysis, path: Path) -> None:  # noqa: ANN401
    import numpy as np

    from fovea.training.evaluation import knn

    from . import evaluate_drawings as draw

    count = min(args.queries, len(val))
    rows = np.array([int((i + 0.5) * len(val) / count) for i in range(count)])
    _, found = knn.neighbours(
        train.features, val.features[rows], min(10, len(train)), device=session.device
    )
    draw.neighbours(session.val, rows, session.train, found.cpu().numpy(), path)
