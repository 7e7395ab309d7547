"""Where a run happens and how it reports: what may change from one start to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fovea.pipeline.errors import UserError
from fovea.pipeline.kinds import Asked


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
    executor: Asked = "auto"
    """What makes the views: OpenCV and torch on threads (host) or on processes, or DALI. Auto is
    DALI on a GPU, but processes for images of 64 px or less, and host on a CPU."""
    threads: int | None = None
    """Threads or processes that decode and augment; by default all cores, shared by the
    ranks of a machine."""
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

    def __post_init__(self) -> None:
        ranges = {
            "threads": (self.threads is None or 1 <= self.threads <= 1024, "1 to 1024"),
            "prefetch": (self.prefetch >= 1, "1 or more"),
            "hw_decoder_frac": (0 <= self.hw_decoder_frac <= 1, "a share in [0, 1]"),
            "log_every": (self.log_every >= 1, "1 step or more"),
            "save_minutes": (self.save_minutes > 0, "more than 0"),
            "save_every": (self.save_every >= 0, "1 step or more, or 0 to go by minutes"),
            "eval_every": (self.eval_every >= 0, "1 epoch or more, or 0 for ten measurements"),
        }
        for name, (good, wanted) in ranges.items():
            if not good:
                option = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise UserError(f"{option}: want {wanted}")
