"""``fovea bench neighbours``: AdaSim's memory at the size of ImageNet, on made features."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

from . import harness


@dataclass(frozen=True, kw_only=True)
class Args:
    """Memory and time of AdaSim's cache, top-K search, window and pair draw.

    Example: fovea bench neighbours --images 1281167 --width 2048 --batch-size 32
    """

    images: int = 1_281_167
    """Images of the data set."""
    width: int = 2048
    """Features of the backbone."""
    batch_size: int = 32
    """Images of a step on this rank."""
    top_k: int = 3
    """Neighbours kept."""
    window: int = 10
    """Epochs kept."""
    steps: int = 3
    """Steps that are timed; the median counts."""
    device: str = "cpu"
    """cpu or cuda."""
    json: bool = False
    """Print the figures as JSON."""
    out: Path | None = None
    """Also store them in this file."""


def run(args: Args) -> int:
    """Measure and print."""
    import torch

    from fovea.training.neighbours import NeighbourMemory, draw_partners

    memory = NeighbourMemory(args.images, args.width, top_k=args.top_k, window=args.window)
    memory.to(args.device)
    memory.seen.fill_(True)
    random = torch.Generator().manual_seed(0)
    for start in range(0, args.images, 1 << 16):
        rows = memory.cache[start : start + (1 << 16)]
        made = torch.randn(rows.shape, generator=random)
        rows.copy_(torch.nn.functional.normalize(made, dim=1))
    times_s = []
    for step in range(args.steps + 1):
        ids = torch.randint(args.images, (args.batch_size,), generator=random)
        features = memory.cache[ids.to(args.device)].float() + 0.001
        start_s = time.perf_counter()
        found = memory.look_and_write(ids.to(args.device), features).cpu()
        if step:
            times_s.append(time.perf_counter() - start_s)
        assert bool((found[:, 0] == ids).all()), "an image is its own nearest here"
    ids = torch.arange(args.images)
    window_ids = torch.randint(args.images, (args.images, args.window * args.top_k))
    window_ids[:, :: args.top_k] = ids[:, None]
    similarities = torch.rand(window_ids.shape, dtype=torch.float16)
    similarities[:, :: args.top_k] = 1.0
    uniform = torch.rand(args.images, dtype=torch.float64)
    start_s = time.perf_counter()
    partners = draw_partners(
        ids, window_ids.int(), similarities, uniform, window=args.window, temp=0.2
    )
    draw_s = time.perf_counter() - start_s
    tables = [memory.ids, memory.similarities, memory.window_ids, memory.window_similarities]
    figures = {
        "cache_gb": memory.cache.nbytes / 1e9,
        "tables_gb": sum(table.nbytes for table in tables) / 1e9,
        "step_s": sorted(times_s)[len(times_s) // 2],
        "draw_s": draw_s,
        "draw_ms_per_image": 1e3 * draw_s / args.images,
        "bootstrap_ratio": float((partners != ids).float().mean()),
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    if not args.json:
        for name, value in figures.items():
            print(f"{name:18} {value:.4g}")
    question = (
        f"AdaSim's memory of {args.images} x {args.width} features: GB, seconds of a step of "
        f"{args.batch_size} images and of the draw of an epoch's pairs"
    )
    rounded = {name: round(value, 4) for name, value in figures.items()}
    harness.report(question, {"figures": rounded}, as_json=args.json, out=args.out)
    return 0
