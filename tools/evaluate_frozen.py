"""``fovea evaluate fewshot``, ``lowshot`` and ``transfer``: on features extracted once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .evaluate_session import Common, Session, at_least, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Fewshot(Common):
    """Prototypes of a few examples (5-way 5-shot, 600 episodes), on the images of --val."""

    way: int = 5
    """Classes an episode."""
    shot: int = 5
    """Examples a class."""
    queries: int = 15
    """Images a class that are classified."""
    episodes: int = 600
    """How many."""
    normalise: bool = False
    """Cosine instead of Euclidean distance."""
    seed: int = 0
    """Of the episodes."""


@dataclass(frozen=True, kw_only=True)
class Lowshot(Common):
    """One linear SVM a class from k images each (VOC07 protocol), scored by mAP."""

    k: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Images a class; those that a class does not have are left out and said."""
    labels: Path | None = None
    """JSON {"image": ["class", ...]} for images of several classes, as in VOC; by default the class
    folders."""
    draws: int = 5
    """Random choices for every k."""
    cost: float = 0.5
    """C of the SVM."""
    seed: int = 0
    """Of the choices."""


@dataclass(frozen=True, kw_only=True)
class Transfer(Common):
    """L2 logistic regression by L-BFGS; its strength is chosen on a split of --train."""

    metric: Literal["auto", "top1", "mean_per_class"] = "auto"
    """Which figure chooses the strength; "auto" goes by --dataset, top1 without."""
    dataset: str | None = None
    """cifar10, food101, pets, ...: whose metric the papers use."""
    strengths: int = 45
    """Values on the log grid from 1e-6 to 1e5."""
    held_out: float = 0.2
    """Share of the training images that choose."""
    seed: int = 0
    """Of the split."""


def fewshot(args: Fewshot) -> int:
    """Scores, saves, prints."""
    from fovea.training.evaluation import fewshot
    from fovea.training.evaluation.results import Result

    at_least(2, args, "way")
    at_least(1, args, "shot", "queries", "episodes")
    session = Session(args)
    episodes = fewshot.Episodes(
        way=args.way,
        shot=args.shot,
        queries=args.queries,
        count=args.episodes,
        normalise=args.normalise,
    )
    fewshot.usable_classes(session.val.labels, episodes)  # before the features are computed
    data = session.features(session.val, "features")
    found = fewshot.evaluate(data, episodes, seed=args.seed)
    name = f"{args.way}-way {args.shot}-shot"
    result = Result(
        protocol="fewshot",
        rows={"trained": {name: found.accuracy, "+-": found.interval95}},
        options={"episodes": args.episodes, "queries": args.queries},
        **session.circumstances(),
    )
    return session.finish(result)


def lowshot(args: Lowshot) -> int:
    """Trains, scores, saves, prints."""
    import numpy as np

    from fovea.pipeline.errors import UserError
    from fovea.training.evaluation import lowshot
    from fovea.training.evaluation.results import Result

    from .progress import bar

    at_least(1, args, "k", "draws")
    if args.cost <= 0:
        raise UserError(f"--cost {args.cost:g}: want more than 0")
    session = Session(args)
    positive, truth = _memberships(args, session)
    fewest = int(positive.sum(axis=0).min())
    ks = tuple(k for k in args.k if k <= fewest)
    if not ks:
        raise UserError(f"--k {min(args.k)}: the smallest class has {fewest} images, write less")
    train = session.features(session.train, "training features")
    val = session.features(session.val, "validation features")
    with bar("SVM sets", len(ks) * args.draws + 1, quiet=args.json) as advance:
        found = lowshot.evaluate(
            np.asarray(train.features), positive, np.asarray(val.features), truth,
            ks=ks, draws=args.draws, cost=args.cost, seed=args.seed, on_fit=advance,
        )  # fmt: skip
    left_out = [k for k in args.k if k not in ks]
    options = {"mAP over": f"{args.draws} draws", "C": args.cost}
    if left_out:
        options["left out, too few images"] = f"k={', '.join(map(str, left_out))}"
    result = Result(
        protocol="lowshot",
        rows={"trained": {name: float(np.mean(values)) for name, values in found.items()}},
        options=options,
        extra={"draws": found},
        **session.circumstances() | {"classes": positive.shape[1]},
    )
    return session.finish(result)


def _memberships(args: Lowshot, session: Session) -> tuple[Bools, Bools]:
    """Which image is of which class, (N, C) and (M, C): by --labels, else by class folder."""
    from fovea.training.evaluation import lowshot

    data = (session.train, session.val)
    if args.labels is None:
        classes = session.check_classes()
        first, second = (lowshot.one_hot(d.labels, classes) for d in data)
        return first, second
    named = [[d.path_of(i) for i in range(len(d))] for d in data]
    every, _ = lowshot.read_classes(args.labels, [*named[0], *named[1]])
    return every[: len(data[0])], every[len(data[0]) :]


def transfer(args: Transfer) -> int:
    """Fits, scores, saves, prints."""
    import numpy as np

    from fovea.pipeline.errors import UserError
    from fovea.training.evaluation import transfer
    from fovea.training.evaluation.results import Result

    from .progress import bar

    if args.dataset and args.dataset not in transfer.METRICS:
        raise UserError(
            f"--dataset {args.dataset}: have {', '.join(transfer.METRICS)}; or give --metric"
        )
    metric = args.metric
    if metric == "auto":
        metric = transfer.METRICS[args.dataset] if args.dataset else "top1"
    at_least(1, args, "strengths")
    share(args, "held_out")
    session = Session(args)
    session.check_classes()
    train = session.features(session.train, "training features")
    test = session.features(session.val, "test features")
    grid = tuple(float(x) for x in np.logspace(-6, 5, args.strengths))
    with bar("fits", len(grid), quiet=args.json) as advance:
        found = transfer.evaluate(
            train, test, metric=metric, grid=grid, held_out=args.held_out, seed=args.seed,
            device=session.device, on_fit=advance,
        )  # fmt: skip
    result = Result(
        protocol="transfer" if not args.dataset else f"transfer-{args.dataset}",
        rows={"trained": {"top1": found.top1, "mean_per_class": found.mean_per_class}},
        options={"l2": f"{found.l2:.3g}", "chosen by": metric},
        **session.circumstances(),
    )
    return session.finish(result)
