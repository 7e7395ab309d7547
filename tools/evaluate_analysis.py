"""``fovea evaluate analysis``: pictures and figures about the structure of the features."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .evaluate_session import Common, Session, at_least


@dataclass(frozen=True, kw_only=True)
class Analysis(Common):
    """t-SNE, confused classes, discriminant ratios, neighbours, clusters, teacher against student.

    PNG pictures and the data behind them (analysis.npz) go to RUN/eval/analysis.
    """

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

    from fovea.pipeline.files import make_folder
    from fovea.training.evaluation import analysis
    from fovea.training.evaluation.results import Result

    from . import evaluate_drawings as draw

    at_least(1, args, "images", "queries")
    at_least(0, args, "clusters")
    session = Session(args)
    classes = session.check_classes()
    count = min(args.images, len(session.val))
    analysis.check_perplexity(count, args.perplexity)
    train = session.features(session.train, "training features")
    val = session.features(session.val, "validation features")
    some = val.take(np.array([int((i + 0.5) * len(val) / count) for i in range(count)]))
    clusters = analysis.kmeans(some, args.clusters or classes, seed=args.seed)
    found: dict[str, Any] = {
        "tsne": analysis.tsne(some, perplexity=args.perplexity, seed=args.seed),
        "labels": some.labels,
        "ids": some.ids,
        "ratios": analysis.discriminant_ratios(some),
        "confusion": analysis.confusion(train, val, k=min(20, len(train))),
        "clusters": clusters.assignment,
    }
    figures = {
        "cluster accuracy": clusters.accuracy,
        "NMI": clusters.nmi,
        "ARI": clusters.ari,
        "discriminant ratio": float(np.nanmedian(found["ratios"])),
    }
    make_folder(session.folder)
    with tempfile.TemporaryDirectory(prefix=".analysis-", dir=session.folder) as work:
        folder = Path(work) / "analysis"  # takes its place with the result, not before
        folder.mkdir()
        names = list(val.class_names) or [f"class {c}" for c in range(classes)]
        _draw(session, found, names, folder)
        draw.grid(session.val, some.ids[clusters.nearest], folder / "clusters.png")
        _neighbour_grid(session, train, val, args, folder / "neighbours.png")
        result = Result(
            protocol="analysis",
            rows={"trained": figures},
            options={"images": count, "clusters": int(clusters.assignment.max()) + 1},
            not_percent=tuple(figures),
            extra={
                "pictures": sorted(p.name for p in folder.glob("*.png")),
                "training": session.trained_branches(),
            },
            **session.circumstances(),
        )
        return session.finish(result, folder)


def _draw(session: Session, found: dict[str, Any], names: list[str], folder: Path) -> None:
    """The pictures that need no images, and the data behind them."""
    import numpy as np

    from . import evaluate_drawings as draw

    ratios = found["ratios"]
    draw.scatter(found["tsne"], found["labels"], names, folder / "tsne.png")
    draw.confusion(found["confusion"], names, folder / "confusion.png")
    draw.histogram(ratios[np.isfinite(ratios)], "discriminant ratio", folder / "ratios.png")
    title = "20-NN accuracy during training"
    draw.curves(session.trained_branches(), title, folder / "training.png")
    np.savez(folder / "analysis.npz", **found)


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
