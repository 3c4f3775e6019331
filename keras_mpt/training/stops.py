"""When a training is over: after its steps, or once its rows are learned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_number, check_size
from keras_mpt.types import Logs


class StepLimit(keras.callbacks.Callback):
    """Stops `fit` after a number of steps, also amid an epoch.

    Counted are the optimizer's steps, those of before this `fit` too, as learning rate schedules
    count them; so an interrupted run that `ResumeTraining` goes on with ends where it would have.

    Args:
        steps: int. The last step.

    Raises:
        ValueError: steps that are no size.

    Example:
        ```python
        limit = keras_mpt.recipes.StepLimit(60)
        # model.fit(x, y, epochs=100, callbacks=[limit])
        ```
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = check_size("steps", steps)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier `fit`."""
        self._before: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Asks once where the optimizer is: in each step it would be a wait for the device."""
        if self._before is None:
            self._before = int(to_numpy(self.model.optimizer.iterations))
        self._in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stops, where that was the last step."""
        self._in_epoch = batch + 1
        if self._before is not None and self._before + self._in_epoch >= self.steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Counts the epoch's steps."""
        if self._before is not None:
            self._before += self._in_epoch


class StopWhenLearned(keras.callbacks.Callback):
    """Stops `fit` once the training loss is small: early stopping without validation rows.

    With a few rows per class there are none to validate on, and the loss of the training rows is
    all that is known. Their cross-entropy is −log of the probability that the model gives to what
    is right: below 0.05 that is more than 95% (as a geometric mean), so that gradients are small
    and more steps make the model surer of the same few rows, not better at others. The rule: stop
    at the end of the `patience`-th epoch in a row whose loss, as `fit` logs it, is at most `loss`.
    It stops no training that has not learned its rows yet, however flat its loss: that is what
    `keras.callbacks.EarlyStopping(monitor="loss")` does, which a warm-up or a plateau ends too
    soon.

    The loss is that of all tasks together; in `Distillation` that with its terms. Where it is no
    cross-entropy, such as a score's squared error, give a `loss` of its own.

    Args:
        loss: float. Above 0. Defaults to `0.05`.
        patience: int. How many epochs in a row. Defaults to `3`.

    Attributes:
        stopped_epoch: int. The epoch at whose end it stopped, 0 being the first; `None` where it
            did not.

    Raises:
        ValueError: a loss that is not above 0, or a patience that is no size.

    Example:
        ```python
        stop = keras_mpt.recipes.StopWhenLearned(loss=0.05, patience=3)
        # model.fit(x, y, epochs=100, callbacks=[stop])
        ```
    """

    def __init__(self, loss: float = 0.05, patience: int = 3) -> None:
        super().__init__()
        self.loss = check_number("loss", loss, above=0.0)
        self.patience = check_size("patience", patience)
        self.stopped_epoch: int | None = None
        self._in_a_row = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier `fit`."""
        self.stopped_epoch, self._in_a_row = None, 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Stops, where it is time to."""
        is_small = float((logs or {}).get("loss", np.inf)) <= self.loss
        self._in_a_row = self._in_a_row + 1 if is_small else 0
        if self._in_a_row >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def run_state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """What a resumed run needs: see `ResumeTraining`."""
        return {"in_a_row": self._in_a_row}, []

    def set_run_state(self, about: dict[str, Any], values: list[np.ndarray]) -> None:
        """Goes on from what `run_state` gave."""
        self._in_a_row = int(about["in_a_row"])
