"""The training loop. It knows no method by name: a method returns a loss, the rest is here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fovea.pipeline.batch import Batch
from fovea.pipeline.loader import Loader

from .alarm import CollapseAlarm, Diverged, FiniteLoss, all_finite
from .checkpoint import Saver
from .damage import DamageReport
from .display import Display
from .distributed import any_rank, barrier, mean, total
from .method import PairsSamples, StepOutput
from .metrics import MetricsWriter
from .run import Run
from .signals import stop_request
from .step import optimize

SIGNAL_STEPS = 10
"""With several ranks they agree on a stop request this often."""


@dataclass
class Clock:
    """Wall time since the last report, and how much of it was spent waiting for data."""

    since: float
    wait_s: float = 0.0
    steps: int = 0

    def figures(self, batch_size: int) -> dict[str, float]:
        """Throughput since the last call."""
        now = time.perf_counter()
        took = max(now - self.since, 1e-9)
        found = {
            "images_per_s": round(self.steps * batch_size / took, 2),
            "data_wait_frac": round(self.wait_s / took, 4),
        }
        self.since, self.wait_s, self.steps = now, 0.0, 0
        return found


class Loop:
    """Trains a `Run` from where it stands to its end, or until it is asked to stop."""

    def __init__(self, run: Run, display: Display) -> None:
        self.run, self.display = run, display
        options = run.options
        self.finite = FiniteLoss(run.world.device)
        self.alarm = CollapseAlarm()
        self.damage = DamageReport(run.world.rank)
        self.saver = Saver(options.out)
        self.saved = time.monotonic()
        self.clock = Clock(time.perf_counter())
        self.writer: MetricsWriter | None = None
        self.stopping = False  # the same on every rank
        self.ask_every = 1 if run.world.size == 1 else SIGNAL_STEPS

    def train(self) -> bool:
        """Train; True when the run is complete, False when it was asked to stop before.

        Raises:
            Diverged: the loss is no longer finite, or the embeddings collapsed and
                ``on_collapse`` is "stop".
        """
        try:
            with stop_request:
                if not self._agree_to_stop():  # asked while everything was loaded and built
                    self._epochs()
                self.saver.wait()
        finally:
            self.saver.finish()  # a run that ends by an error leaves its last good checkpoint
            if self.writer:
                self.writer.close()
        return self.run.step >= self.run.total_steps

    def _epochs(self) -> None:
        run = self.run
        if run.world.is_first:
            self.writer = MetricsWriter(run.options.out, run.step, wandb=run.options.wandb)
        with run.loader() as loader:
            self.damage.watch(loader)
            if run.step == 0:
                self._evaluate()
            while run.step < run.total_steps and not self.stopping:
                self._epoch(loader)

    def _epoch(self, loader: Loader) -> None:
        run = self.run
        epoch, done = divmod(run.step, run.steps_per_epoch)
        if isinstance(run.method, PairsSamples):
            begin = run.progress(epoch * run.steps_per_epoch)
            loader.partner_ids = run.method.partner_ids(begin).numpy()
        batches = iter(loader.batches(epoch, done * run.config.batch_size))
        self.clock = Clock(time.perf_counter())
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.clock.wait_s += time.perf_counter() - asked
            if batch is None:
                break
            self._step(batch)
            if run.step % self.ask_every == 0 and self._agree_to_stop():
                break
        if run.step % run.steps_per_epoch == 0:
            self._evaluate()
        if run.step == run.total_steps or self.stopping:
            self._save()

    def _step(self, batch: Batch) -> None:
        run = self.run
        output, lr = optimize(run, batch)
        run.step += 1
        run.method.after_step(run.progress())
        self.clock.steps += 1
        self.finite.watch(output.loss, run.step)
        if run.step % run.options.log_every == 0 or run.step == run.total_steps:
            self._report(output, lr)
        every, minutes = run.options.save_every, run.options.save_minutes
        due = run.step % every == 0 if every else time.monotonic() - self.saved > 60 * minutes
        if due and run.step < run.total_steps:
            self._save()

    def _report(self, output: StepOutput, lr: float) -> None:
        run = self.run
        self.finite.check()
        values = {"loss": float(mean(output.loss.detach()))}
        values |= {name: float(mean(value)) for name, value in output.logs.items()}
        values |= {"lr": lr, **self.clock.figures(run.config.batch_size)}
        run.replaced += total(self.damage.news(), run.world.device)
        if run.replaced:
            values["replaced"] = run.replaced
        if run.world.device.type == "cuda":
            values["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        self._write("train", values)
        self.display.step(run.step, values)
        warning = self.alarm.update(run.step, values)
        if warning:
            self._write("alarm", {"message": warning})
            self.display.say(f"warning: {warning}")
            if run.options.on_collapse == "stop":
                raise Diverged(warning)

    def _evaluate(self) -> None:
        run = self.run
        every = run.options.eval_every or max(1, run.config.epochs // 10)
        last = run.step >= run.total_steps
        if run.knn and run.world.is_first and (last or run.progress().epoch % every == 0):
            for branch, scores in run.knn.measure(run.method).items():
                self._write("eval", {"branch": branch, **scores})
                self.display.scores(run.progress().epoch, branch, scores)
        barrier()

    def _save(self) -> None:
        self.finite.check()
        self.saved = time.monotonic()
        if not self.run.world.is_first:
            return
        if not all_finite(self.run.optimizer):
            raise Diverged(f"a weight is no longer finite after step {self.run.step}")
        self.saver.save(self.run.state())

    def _write(self, kind: str, values: Mapping[str, object]) -> None:
        if self.writer:
            self.writer.write(kind, self.run.step, self.run.progress().epoch, values)

    def _agree_to_stop(self) -> bool:
        """Whether to stop now, because a rank was asked to."""
        self.stopping = any_rank(stop_request.asked, self.run.world.device)
        return self.stopping
