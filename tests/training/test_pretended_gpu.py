"""Every method's step on a GPU that is not there: all tensors on one device, and no waiting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from pretended_gpu import GPU, backward, move, on_gpu, pretended_gpu
from small_methods import make_batch, make_method, progress
from torch.testing._internal.distributed.fake_pg import FakeStore

from fovea.pipeline import lookup
from fovea.pipeline.batch import Batch
from fovea.training import optim, step
from fovea.training.alarm import FiniteLoss
from fovea.training.config import METHODS
from fovea.training.heads import Encoder
from fovea.training.optim import OptimConfig


@pytest.fixture(params=[1, 2])
def ranks(request):
    """A single process, or the second of two whose collectives do nothing."""
    if request.param == 2:
        dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    yield request.param
    if request.param == 2:
        dist.destroy_process_group()


def there(batch: Batch) -> Batch:
    """As a loader gives it: only the views are on the GPU."""
    views = {name: on_gpu(view) for name, view in batch.views.items()}
    return Batch(views, batch.ids, batch.labels, batch.partner_ids)


@pytest.mark.parametrize("name", lookup.names(METHODS))
def test_a_step_stays_on_its_device_and_never_waits(name, ranks):
    changes = {"shuffle_bn": True} if name in ("isd", "mocov2", "ressl") else {}
    method = make_method(name, **changes)
    for part in method.modules():
        if isinstance(part, Encoder):
            part.precision = torch.bfloat16
    batches = [make_batch(name, number) for number in range(2)]
    with pretended_gpu() as waits:
        move(method)
        config = OptimConfig(kind="lars", clip_norm=1.0)
        run = SimpleNamespace(
            method=method,
            optimizer=optim.build(config, method),
            scaler=torch.amp.GradScaler("cuda", enabled=False),
            config=SimpleNamespace(optim=config, batch_size=8),
            total_steps=12,
            steps_per_epoch=4,
        )
        finite = FiniteLoss(GPU)
        for number, batch in enumerate(batches):
            output = method(there(batch), progress(number))
            backward(method)
            step._apply(run, progress(number))
            finite.watch(output.loss, number + 1)
            method.after_step(progress(number + 1))
    assert {output.loss.device, *(log.device for log in output.logs.values())} == {GPU}
    assert not waits.seen


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_other_optimizers_do_not_wait_either(kind):
    method = make_method("ressl")
    with pretended_gpu() as waits:
        move(method)
        optimizer = optim.build(OptimConfig(kind=kind), method)
        for _ in range(2):
            backward(method)
            optimizer.step()
    assert not waits.seen


def test_a_tensor_on_the_wrong_device_is_found():
    """The check itself."""
    with pretended_gpu() as waits:
        here, away = torch.ones(3), on_gpu(torch.ones(3))
        with pytest.raises(RuntimeError, match="cpu"):
            here + away
        assert not waits.seen
        here.to(GPU)
        here.to(GPU, non_blocking=True)
        assert len(waits.seen) == 2
        here.pin_memory().to(GPU, non_blocking=True)
        assert len(waits.seen) == 2
        away.sum().cpu()
        assert len(waits.seen) == 3
        away[torch.tensor([0])]
        assert len(waits.seen) == 4
