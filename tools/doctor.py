"""``fovea doctor``: where the time of a run goes, and which option would help."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fovea.pipeline.engine import cores_of_rank
from fovea.pipeline.errors import UserError
from fovea.pipeline.kinds import Asked
from fovea.training.options import Options

if TYPE_CHECKING:
    from fovea.pipeline.views import ViewRecipe
    from fovea.training.config import RunConfig
    from fovea.training.run import Run

    from .benchmarks.rates import Rates

BALANCED = 1.1  # one side is the limit if it is slower by this factor
HIDDEN = 0.15  # contention below this is good overlap
MOSTLY = 0.5  # a stage with this share of the loader's time is what to work on


@dataclass(frozen=True, kw_only=True)
class Args:
    """Three rates of a run: loader alone, compute alone and both together; and what to do.

    Start it under torchrun with the ranks of the run, for the rates of all of them.

    Example: fovea doctor ressl_r50 --data shards/train

    Example: fovea doctor runs/r50
    """

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET_OR_RUN")]
    """A preset, or the directory of a run, whose configuration and data are taken."""
    data: Path | None = None
    """Shards; those of the run by default."""
    masks: Path | None = None
    """Saliency masks, for recipes that remove backgrounds."""
    batch_size: int = 0
    """Images per step over all ranks; 0 takes the configuration's."""
    batches: int = 20
    """Batches that each rate is measured over."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    executor: Asked = "auto"
    """What makes the views."""
    threads: int | None = None
    """Threads of the loader."""
    prefetch: int = Options.prefetch
    """Finished batches to hold ready."""
    hw_decoder_frac: float = Options.hw_decoder_frac
    """Share of the JPEGs for a GPU's decoder units, [0, 1]; its cores decode the others."""
    json: bool = False
    """Print the figures as JSON."""


def run(args: Args) -> int:
    """Measure, print and advise."""
    from fovea.training import distributed
    from fovea.training.run import Run

    from .benchmarks import rates

    if args.batches < 2:
        raise UserError(f"--batches {args.batches}: want 2 or more")
    config, data, masks, recipe = _configuration(args)
    if args.batch_size:
        config = dataclasses.replace(config, batch_size=args.batch_size)
    with tempfile.TemporaryDirectory() as scratch, distributed.world(args.device) as world:
        options = Options(
            data=data,
            out=Path(scratch),
            masks=masks,
            device=args.device,
            executor=args.executor,
            threads=args.threads,
            prefetch=args.prefetch,
            hw_decoder_frac=args.hw_decoder_frac,
        )
        session = Run(config, options, world, recipe=recipe)
        found = rates.measure(session, args.batches)
        per_rank = _gathered(found)
        if world.is_first:
            figures = _figures(session, found, per_rank, args)
            figures["live"] = _live(Path(args.what))
            print(json.dumps(figures, indent=1) if args.json else "\n".join(_lines(figures)))
        del session  # before the process group, as `pretrain` does
    return 0


def _configuration(args: Args) -> tuple[RunConfig, Path, Path | None, ViewRecipe | None]:
    """Configuration, shards, masks and recorded views of a preset or a run directory."""
    from fovea.training.config import RunConfig, preset

    from .report_run import recipe_of

    stored = Path(args.what) / "config.json"
    if not stored.is_file():
        if args.data is None:
            raise UserError(f"fovea doctor {args.what}: give --data SHARDS with a preset")
        return preset(args.what), args.data, args.masks, None
    notes = json.loads(stored.read_text())
    data = args.data or Path(notes["data"])
    masks = args.masks or (Path(notes["masks"]) if notes.get("masks") else None)
    return RunConfig.from_json(notes["config"]), data, masks, recipe_of(notes)


def _live(run_dir: Path) -> dict[str, Any] | None:
    """What a run directory's own log says of its last steps."""
    log = run_dir / "metrics.jsonl"
    if not log.is_file():
        return None
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-10:]
    if not last:
        return None
    middle = sorted(row["images_per_s"] for row in last)[len(last) // 2]
    waiting = sum(row["data_wait_frac"] for row in last) / len(last)
    return {"images_per_s": middle, "data_wait_frac": round(waiting, 4)}


def _gathered(found: Rates) -> list[dict[str, float]]:
    """Fetch percentiles of every rank, together with compute."""
    from torch import distributed as dist

    mine = {"p50_ms": found.both.wait_ms(50), "p99_ms": found.both.wait_ms(99)}
    if not dist.is_initialized():
        return [mine]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    return every


def _figures(
    session: Run, found: Rates, per_rank: list[dict[str, float]], args: Args
) -> dict[str, Any]:
    ranks = session.world.size
    return {
        "method": session.config.method.name,
        "backbone": session.config.backbone,
        "recipe": session.config.recipe,
        "batch_size": session.config.batch_size,
        "device": str(session.world.device),
        "ranks": ranks,
        "images_per_s": {
            "loader_alone": round(ranks * found.loader.images_per_s, 1),
            "compute_alone": round(ranks * found.compute.images_per_s, 1),
            "both": round(ranks * found.both.images_per_s, 1),
        },
        "step_ms": {
            "loader_alone": round(1e3 * found.loader.batch_s, 2),
            "compute_alone": round(1e3 * found.compute.batch_s, 2),
            "both": round(1e3 * found.both.batch_s, 2),
        },
        "efficiency": round(found.efficiency, 3),
        "contention": round(found.contention, 3),
        "data_wait_frac": round(found.both.wait_frac, 4),
        "fetch": [{k: round(v, 2) for k, v in rank.items()} for rank in per_rank],
        "loader_thread_ms_per_image": dataclasses.asdict(found.split),
        "advice": list(_advice(found, session, args)),
    }


def _advice(found: Rates, session: Run, args: Args) -> Iterator[str]:
    """Plain sentences, each with the option to set."""
    loader, compute = found.loader.images_per_s, found.compute.images_per_s
    if found.split.disk_frac > MOSTLY:
        yield (
            f"{found.split.disk_frac:.0%} of the images came from the disk"
            f" ({found.split.disk_mb_per_s:.0f} MB/s): copy the shards to a local SSD, or leave"
            " more memory to the page cache"
        )
    on_cpu = session.world.device.type == "cpu"
    if loader < compute / BALANCED:
        yield f"the loader is the limit: {compute / loader:.1f} x slower than the computation"
        yield from _loader_advice(found, session, args)
    elif compute < loader / BALANCED:
        yield f"the computation is the limit; the loader could feed {loader / compute:.1f} x of it"
    else:
        yield "loader and computation are balanced"
    if found.contention > HIDDEN and on_cpu:
        yield (
            "both share the same cores, so little can overlap: the sum of both times is the floor;"
            " OMP_WAIT_POLICY=PASSIVE and --threads 1 or 2 keep them out of each other's way"
        )
    elif found.contention > HIDDEN:
        yield (
            f"{found.contention:.0%} of the loader's time is not hidden by compute: decode on the"
            " host (--executor processes), or store smaller images (fovea shard --max-side 500)"
        )


def _loader_advice(found: Rates, session: Run, args: Args) -> Iterator[str]:
    cores = cores_of_rank()
    threads = args.threads or cores
    if threads < cores:
        yield f"--threads {cores}: each rank has {cores} cores, its loader uses {threads}"
    if session.world.device.type == "cuda" and args.executor in ("host", "processes"):
        yield "--executor dali: decode and augment on the GPU"
    decode, augment = found.split.decode_ms, found.split.augment_ms
    if decode is not None and augment is not None:
        if decode > MOSTLY * (decode + augment + found.split.read_ms):
            yield (
                f"decoding takes {decode:.2f} ms of thread time per image, augmenting"
                f" {augment:.2f}: store smaller images, fovea shard --max-side 500"
            )
        else:
            yield f"augmenting takes {augment:.2f} ms of thread time per image: more cores help"


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    rates, steps = figures["images_per_s"], figures["step_ms"]
    yield (
        f"{figures['method']}, {figures['backbone']}, recipe {figures['recipe']}, batch"
        f" {figures['batch_size']} on {figures['ranks']} x {figures['device']}"
    )
    for name in rates:
        yield f"  {name.replace('_', ' '):14} {rates[name]:9,.0f} images/s {steps[name]:10.1f} ms"
    yield f"  efficiency     {figures['efficiency']:9.2f} of the slower side alone"
    yield f"  contention     {figures['contention']:9.2f} of the loader's time is not hidden"
    yield f"  waiting        {figures['data_wait_frac']:9.1%} of the time, as a fetch timer sees it"
    for rank, fetch in enumerate(figures["fetch"]):
        yield f"  fetch rank {rank}   p50 {fetch['p50_ms']:.1f} ms, p99 {fetch['p99_ms']:.1f} ms"
    split = figures["loader_thread_ms_per_image"]
    known = {k[:-3]: v for k, v in split.items() if k.endswith("_ms") and v is not None}
    yield "  loader, thread ms per image: " + ", ".join(f"{k} {v:.3f}" for k, v in known.items())
    yield (
        f"  disk           {split['disk_mb_per_s']:9.1f} MB/s, {split['disk_frac']:.0%} of the"
        " images; the page cache gave the rest"
    )
    if figures["live"]:
        live = figures["live"]
        yield (
            f"  the run itself {live['images_per_s']:9,.0f} images/s,"
            f" waiting {live['data_wait_frac']:.1%}"
        )
    for sentence in figures["advice"]:
        yield f"- {sentence}"
