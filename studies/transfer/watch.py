"""What a training looks like on its way: scores and losses at some of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Of a training's steps, where it is looked at.
SHARES = (0.0, 1 / 6, 1 / 3, 2 / 3, 1.0)


class Watch:
    """Scores a model at a few steps of its training, and adds up how long that took.

    Args:
        steps: int, of the whole training.
        measure: function of a `predict` that gives a score, or `None` to note losses alone.
    """

    def __init__(self, steps: int, measure: Callable[[Any], float] | None = None) -> None:
        self.points = [round(share * steps) for share in SHARES]
        self.measure = measure
        self.seconds = 0.0
        self.scores: dict[int, float] = {}
        self.losses: dict[int, float] = {}
        self._predict: Any = None
        self._last = (0, 0.0)

    def begin(self, predict: Any) -> None:
        """Before the first step; `predict` is asked again at later ones."""
        self._predict = predict
        self._note(0)

    def after_step(self, step: int, mean_loss: float) -> None:
        """After a step, counted from 1; `mean_loss` is that of all steps so far."""
        if step not in self.points:
            return
        before, total = self._last
        now = mean_loss * step
        if step > before:
            self.losses[step] = (now - total) / (step - before)
        self._last = step, now
        # The last step's score is the run's own.
        if step < self.points[-1]:
            self._note(step)

    def _note(self, step: int) -> None:
        if self.measure is not None and self._predict is not None:
            began = time.perf_counter()
            self.scores[step] = self.measure(self._predict)
            self.seconds += time.perf_counter() - began
