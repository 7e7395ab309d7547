"""ReLICv2: contrast with few negatives, and keep what is predicted from view to view the same.

Tomasev et al., "Pushing the limits of self-supervised ResNets" (arXiv:2201.05119); with two views
and all other images as negatives it is ReLIC (Mitrovic et al., ICLR 2021, arXiv:2010.07922). No
code of the authors exists; docs/design.md lists how ambiguities were read.
Letters: B batch of this rank, N batch of all ranks, D embedding, E negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.pipeline.batch import Batch
from fovea.pipeline.errors import UserError
from fovea.pipeline.transfer import send

from .. import ema
from ..distributed import gather, gather_with_grad, rank, world_size
from ..heads import Encoder, feature_width, mlp
from ..method import BatchShape, DataFacts, MethodConfig, Progress, StepOutput, views_of
from ..metrics import feature_std
from ..schedule import check_momenta, ema_momentum

VIEWS = {"large": (1, 8), "small": (0, 8)}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """ReLICv2; the defaults are the paper's, with its JFT values where ImageNet's are not given."""

    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    out: int = 256
    """Width of the embedding."""
    negatives: int = 10
    """Images of the batch that a positive is told from; 0 takes all others (ReLIC)."""
    temp: float = 0.2
    """Temperature."""
    contrast_scale: float = 0.3
    """Weight of the contrastive term."""
    invariance_scale: float = 2.0
    """Weight of the KL term (beta)."""
    include_own: bool = False
    """Also pair a large view with itself, as Listing 1 of the paper does."""
    momentum: float = 0.996
    """Of the target network at the start (.99 for 300 epochs or fewer)."""
    final_momentum: float = 1.0
    """Of the target network at the end, reached by a cosine."""

    def __post_init__(self) -> None:
        if self.temp <= 0:
            raise UserError(f"method.temp={self.temp}: want above 0")
        if self.negatives < 0:
            raise UserError(f"method.negatives={self.negatives}: want 0 (all) or more")
        check_momenta(self.momentum, self.final_momentum)


def draw_negatives(count: int, negatives: int, generator: torch.Generator) -> Tensor:
    """For each of N rows, E other rows, uniformly and without repeats: int64 (N, E).

    Floyd's sampling, all rows at once; with E = 0 all others in order.
    """
    rows = torch.arange(count)
    others = count - 1
    if negatives == 0:
        picked = torch.arange(others).expand(count, others)
        return picked + (picked >= rows[:, None])
    picked = torch.empty(count, 0, dtype=torch.int64)
    for last in range(others - negatives, others):
        drawn = torch.randint(last + 1, (count, 1), generator=generator)
        taken = (picked == drawn).any(dim=1, keepdim=True)
        picked = torch.cat([picked, torch.where(taken, last, drawn)], dim=1)
    return picked + (picked >= rows[:, None])


def pair_terms(
    online_BD: Tensor, target_BD: Tensor, negatives_BE: Tensor, temp: float
) -> tuple[Tensor, Tensor]:
    """Contrastive and invariance term of an online and a target view, (B,) each.

    Eq. 1: p = softmax over the own row and the negatives of <online, target> / temp; the first term
    is -log p of the own row. Eq. 2: KL(p || q) with q the same embeddings with roles exchanged,
    because small views have no target embedding; p carries no gradient. Takes raw rows; rows of
    all ranks are candidates, and `negatives_BE` counts over them.
    """
    online = F.normalize(online_BD, dim=1)
    target = F.normalize(target_BD.detach(), dim=1)
    log_p = _log_shares(online, gather(target), negatives_BE, temp)
    log_q = _log_shares(target, gather_with_grad(online), negatives_BE, temp)
    fixed = log_p.detach()
    return -log_p[:, 0], (fixed.exp() * (fixed - log_q)).sum(dim=1)


def _log_shares(anchor_BD: Tensor, rows_ND: Tensor, negatives_BE: Tensor, temp: float) -> Tensor:
    own = torch.arange(len(anchor_BD), device=anchor_BD.device) + rank() * len(anchor_BD)
    candidates = rows_ND[torch.cat([own[:, None], negatives_BE], dim=1)]  # (B, 1 + E, D)
    similarity = torch.einsum("bd,bed->be", anchor_BD, candidates)
    return F.log_softmax(similarity / temp, dim=1)


class ReLICv2(nn.Module):
    """See the module; the loss is the mean over pairs of a view and another large view."""

    def __init__(self, config: Config, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        head = (config.hidden, config.out)
        projector = mlp(feature_width(backbone), *head, last_bias=False)
        predictor = mlp(config.out, *head, last_bias=False)
        self.student = Encoder(backbone, projector, predictor)
        self.teacher = ema.make_teacher(Encoder(backbone, projector))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of all pairs; negatives are drawn anew for each pair."""
        config = self.config
        large = views_of(batch, "large")
        online = [self.student(view) for view in [*large, *views_of(batch, "small")]]
        with torch.no_grad():
            target = [self.teacher(view) for view in large]
        random = progress.generator("negatives")
        contrasts, invariances = [], []
        for v, online_view in enumerate(online):
            for g, target_view in enumerate(target):
                if v == g and not config.include_own:
                    continue
                chosen = send(self._negatives(len(online_view), random), online_view.device)
                contrast, invariance = pair_terms(online_view, target_view, chosen, config.temp)
                contrasts.append(contrast.mean())
                invariances.append(invariance.mean())
        contrast, invariance = torch.stack(contrasts).mean(), torch.stack(invariances).mean()
        logs = {
            "contrast_loss": contrast.detach(),
            "invariance_loss": invariance.detach(),
            "feature_std": feature_std(online[0]),
        }
        loss = config.contrast_scale * contrast + config.invariance_scale * invariance
        return StepOutput(loss, logs)

    def _negatives(self, batch: int, random: torch.Generator) -> Tensor:
        """This rank's rows of a draw that all ranks make alike."""
        whole = batch * world_size()
        drawn = draw_negatives(whole, self.config.negatives, random)
        return drawn[rank() * batch : (rank() + 1) * batch]

    def after_step(self, progress: Progress) -> None:
        """The target network follows."""
        config = self.config
        momentum = ema_momentum(progress.fraction_before, config.momentum, config.final_momentum)
        ema.follow(self.teacher, self.student, momentum)

    def check_batch(self, batch: BatchShape) -> None:
        """A batch must hold the negatives asked for."""
        wanted = max(1, self.config.negatives)
        if batch.together <= wanted:
            raise UserError(
                f"method.negatives={wanted} want a batch of {wanted + 1} or more at once, and "
                f"there are {batch.together}: raise --batch-size or lower --accumulate"
            )


def build(config: Config, backbone: nn.Module, data: DataFacts) -> ReLICv2:
    """ReLICv2 around `backbone`."""
    return ReLICv2(config, backbone)
