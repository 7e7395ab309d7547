"""Where a run happens and how it reports: what may change from one start to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Options:
    """Nothing here changes what a run computes; that is `config.RunConfig`."""

    data: Path
    """Shards to train on, made by 'fovea shard'."""
    out: Path
    """Run directory: configuration, metrics, checkpoints."""
    val: Path | None = None
    """Held-out shards with classes: kNN accuracy is measured on them as training goes."""
    masks: Path | None = None
    """Saliency masks of the shards, for recipes that remove backgrounds."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    executor: Literal["auto", "host", "dali"] = "auto"
    """What makes the views: auto is DALI on a GPU, OpenCV and torch on a CPU and for images of
    64 px or less."""
    threads: int | None = None
    """Threads that decode and augment; by default as many as there are cores."""
    prefetch: int = 2
    """Finished batches to hold ready."""
    hw_decoder_frac: float = 0.65
    """Share of the JPEGs for a GPU's decoder units, [0, 1]; its cores decode the others."""
    log_every: int = 10
    """Steps between two lines in metrics.jsonl."""
    save_minutes: float = 5.0
    """Minutes between checkpoints; there is one more at the end."""
    save_every: int = 0
    """Steps between checkpoints, instead of minutes; 0 goes by minutes."""
    eval_every: int = 0
    """Epochs between kNN measurements; 0 makes ten of them."""
    on_collapse: Literal["warn", "stop"] = "warn"
    """What to do when embeddings collapse."""
    wandb: str = ""
    """W&B project to log to as well (needs the extra)."""
