"""Run as a script by torchrun's environment: gradients of one step on this rank of several.

usage: two_ranks.py NAME OUT   (RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set)
"""

from __future__ import annotations

import sys

import torch
from small_methods import make_batch, make_method, progress

from fovea.pipeline.batch import Batch
from fovea.training import batchnorm, distributed
from fovea.training.method import EditsGradients

STEPS = 3
GLOBAL_BATCH = 8


def share(batch: Batch, world: distributed.World) -> Batch:
    """A rank's contiguous part of the global batch, as the plan deals it."""
    each = len(batch.ids) // world.size
    rows = slice(world.rank * each, (world.rank + 1) * each)
    views = {name: view[rows].to(world.device) for name, view in batch.views.items()}
    partners = None if batch.partner_ids is None else batch.partner_ids[rows]
    return Batch(views, batch.ids[rows], batch.labels[rows], partners)


def gradients(name: str, world: distributed.World) -> dict[str, torch.Tensor]:
    """Gradients, losses and state of some steps in float64 on `world`, synchronised BN."""
    changes = {"shuffle_bn": True} if name in ("isd", "mocov2", "ressl") else {}
    method = make_method(name, **changes).double().to(world.device)
    method = batchnorm.synchronise(method, world.device)
    model: torch.nn.Module = method
    if world.size > 1:
        model = distributed.distribute(method, world.device)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    found: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        batch = make_batch(name, step, GLOBAL_BATCH, torch.float64)
        output = model(share(batch, world), progress(step))
        output.loss.backward()
        found[f"loss {step}"] = distributed.mean(output.loss.detach())
        if isinstance(method, EditsGradients):
            method.after_backward(progress(step))
        for key, parameter in method.named_parameters():
            if parameter.grad is not None:
                found[f"gradient {step} {key}"] = parameter.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(progress(step + 1))
    states = {k: v for k, v in method.state_dict().items() if isinstance(v, torch.Tensor)}
    return found | {f"state {k}": v for k, v in states.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.world("cpu") as world:
        for name in sys.argv[2:]:
            found = gradients(name, world)
            torch.save(found, f"{sys.argv[1]}/{name}-{world.rank}.pt")
