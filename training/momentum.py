"""What MoCo, ISD and ReSSL share: a teacher that follows, and a queue of its past embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fovea.pipeline.errors import UserError

from . import ema
from .heads import Encoder
from .method import BatchShape, MethodConfig, Progress
from .queue import Queue, check_queue
from .shuffle import encode_keys


@dataclass(frozen=True, kw_only=True)
class QueueConfig(MethodConfig):
    """Settings of teacher and queue."""

    queue_size: int = 65536
    """Past teacher embeddings to compare with; a multiple of the batch."""
    momentum: float = 0.999
    """Of the teacher."""
    shuffle_bn: bool = True
    """Deal the teacher's batch over the ranks."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise UserError(f"method.momentum={self.momentum}: want [0, 1]")


class QueueMethod(nn.Module):
    """Student, teacher and queue. A step goes student, keys, loss against the queue as it was;
    then the teacher follows, and the keys of the step enter the queue."""

    def __init__(self, config: QueueConfig, student: Encoder, width: int) -> None:
        """`width` is that of the embeddings."""
        super().__init__()
        self.student = student
        self.teacher = ema.make_teacher(Encoder(student.backbone, student.projector))
        self.queue = Queue(config.queue_size, width)
        self._settings = config

    def keys(self, view: Tensor, progress: Progress) -> Tensor:
        """The teacher's unit embeddings (B, D) of a view, without gradient."""
        return encode_keys(self.teacher, view, progress, shuffle=self._settings.shuffle_bn)

    def momentum(self, progress: Progress) -> float:  # noqa: ARG002 (a schedule looks at it)
        """Of the teacher, at `progress`."""
        return self._settings.momentum

    def after_step(self, progress: Progress) -> None:
        """The teacher follows the student; the keys of this step enter the queue."""
        ema.follow(self.teacher, self.student, self.momentum(progress))
        self.queue.commit()

    def check_batch(self, batch: BatchShape) -> None:
        """Batches must fill the queue evenly."""
        check_queue(len(self.queue), batch.whole)
