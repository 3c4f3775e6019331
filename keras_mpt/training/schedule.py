"""A learning rate that rises and falls."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_mpt.checks import check_choice, check_count, check_number, check_size
from keras_mpt.types import Config, Tensor

FALLS = (None, "linear", "cosine")


@keras.saving.register_keras_serializable(package="keras_mpt")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises to its peak in even steps, and falls from there to 0.

    With W warm-up steps of N, step t, counted from 0, has

        peak · (t + 1) / W                   while t < W,
        peak · (1 − p)                       after it, with `decay="linear"`,
        peak · (1 + cos(π p)) / 2            with `decay="cosine"`,

    where p = (t − W) / (N − W). From step N on it is 0, so that more steps change nothing. Keras's
    own `CosineDecay` has a warm-up too, whose first step is at rate 0.

    Args:
        peak: float. The largest rate, above 0.
        steps: int. N, the steps of the whole training.
        warmup_steps: int. W, below N. Defaults to `0`.
        decay: `"linear"`, `"cosine"`, or `None`: the peak is kept. Defaults to `"linear"`.

    Call arguments:
        step: scalar integer tensor. t.

    Returns:
        A scalar float32 tensor.

    Raises:
        ValueError: a rate that is not above 0, or a warm-up as long as the training.

    Example:
        ```python
        rate = keras_mpt.recipes.WarmupDecay(0.1, steps=10, warmup_steps=2)
        found = [round(float(rate(step)), 4) for step in (0, 1, 2, 6, 10)]
        assert found == [0.05, 0.1, 0.1, 0.05, 0.0]
        ```

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 5.3, for the warm-up; Loshchilov and
    Hutter 2017 (arXiv 1608.03983) for the cosine.
    """

    def __init__(
        self, peak: float, steps: int, warmup_steps: int = 0, decay: str | None = "linear"
    ) -> None:
        super().__init__()
        self.peak = check_number("peak", peak, above=0.0)
        self.steps = check_size("steps", steps)
        self.warmup_steps = check_count("warmup_steps", warmup_steps)
        check_choice("decay", decay, FALLS)
        self.decay = decay
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"`warmup_steps` should be fewer than the {self.steps} steps. Received: "
                f"warmup_steps={warmup_steps}"
            )

    def __call__(self, step: Tensor) -> Tensor:
        """The rate of a step."""
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0)
        if self.decay is None:
            return self.peak * rise
        part = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        part = ops.clip(part, 0.0, 1.0)
        left = 1.0 - part if self.decay == "linear" else (1.0 + ops.cos(math.pi * part)) / 2.0
        return self.peak * rise * left

    def get_config(self) -> Config:
        """What it was made with."""
        names: tuple[Any, ...] = ("peak", "steps", "warmup_steps", "decay")
        return {name: getattr(self, name) for name in names}
