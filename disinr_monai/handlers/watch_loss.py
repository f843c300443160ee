from __future__ import annotations

import logging
import math
from collections import deque
from statistics import median

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.utils import CommonKeys
from torch.optim import Optimizer

from disinr_monai.errors import InputError
from disinr_monai.fitting.rollback import go_back
from disinr_monai.handlers.resume import ResumeCheckpoint
from disinr_monai.runtime.distributed import world_size

logger = logging.getLogger(__name__)

_EXPLOSION, _MAX_ROLLBACKS = 100.0, 3


class WatchLoss:
    """Skip steps with a loss or gradient that is not finite; return to the last checkpoint when the loss explodes.

    A skipped step changes no weight. ``patience`` such steps
    in a row, or a loss above a hundred times the median of the last hundred, is a divergence: weights and optimiser
    return to the last resume checkpoint and the learning rate is halved, at most three times.

    Args:
        optimizer: of the training.
        lr_scheduler: the schedule that sets the learning rate.
        checkpoint: the one to go back to.
        patience: see above.

    Raises:
        InputError: a fourth divergence, or before the first checkpoint.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        checkpoint: ResumeCheckpoint,
        patience: int = 10,
    ) -> None:
        self.optimizer, self.lr_scheduler, self.checkpoint, self.patience = (
            optimizer,
            lr_scheduler,
            checkpoint,
            patience,
        )
        self.skipped = self.rollbacks = self._in_a_row = 0
        self._recent: deque[float] = deque(maxlen=100)

    def attach(self, engine: Engine) -> None:
        """Check between the backward pass and the step."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._look)

    def _look(self, engine: Engine) -> None:
        loss = float(engine.state.output[CommonKeys.LOSS].detach())
        if math.isfinite(loss) and self._gradients_are_finite():
            self._in_a_row = 0
            if len(self._recent) >= 20 and loss > _EXPLOSION * max(median(self._recent), 1e-12):
                self._roll_back(engine, f"the loss rose to {loss:.3g} from {median(self._recent):.3g}")
            else:
                self._recent.append(loss)
            return
        self.optimizer.zero_grad()
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row == 1:
            logger.warning("iteration %d: the loss or its gradient is not finite; no step", engine.state.iteration)
        if self._in_a_row >= self.patience:
            self._roll_back(engine, f"{self._in_a_row} steps in a row without a finite loss")

    def _gradients_are_finite(self) -> bool:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = [torch.linalg.vector_norm(p.grad) for p in parameters]
        return not norms or bool(torch.isfinite(torch.stack(norms)).all())

    def _roll_back(self, engine: Engine, reason: str) -> None:
        self.optimizer.zero_grad()
        where = f"iteration {engine.state.iteration}: {reason}"
        # One of many processes cannot go back alone.
        if self.rollbacks >= _MAX_ROLLBACKS or world_size() > 1 or not self.checkpoint.path.is_file():
            raise InputError(
                f"lr: expected training to converge, found that it diverges ({where}, {self.rollbacks} times gone "
                "back); give a smaller --lr, or --amp false"
            )
        go_back(self.optimizer, self.checkpoint.load_weights)
        self.lr_scheduler.base_lrs = [lr / 2 for lr in self.lr_scheduler.base_lrs]
        self.rollbacks += 1
        self._in_a_row = 0
        self._recent.clear()
        logger.warning("%s; back to the last checkpoint, learning rate halved", where)
