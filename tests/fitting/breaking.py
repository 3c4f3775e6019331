"""What breaks a run off, and what shows whether a step was whole."""

import keras
import numpy as np
from keras import ops


class Stop(BaseException):
    """An interrupt that no `except Exception` stops."""


class StopAt(keras.callbacks.Callback):
    """Raises an error when one of Keras's hooks is called for the n-th time."""

    def __init__(self, hook, at=1, error=Stop):
        super().__init__()
        self.hook, self.at, self.error = hook, at, error

    def _called(self, hook):
        if hook == self.hook:
            self.at -= 1
            if not self.at:
                raise self.error("stopped")


def _hook(name):
    def called(self, *args, **kwargs):
        self._called(name)

    return called


BATCH_HOOKS = [f"on_{k}_batch_{w}" for k in ("train", "test", "predict") for w in ("begin", "end")]
for _name in (*BATCH_HOOKS, "on_epoch_begin", "on_epoch_end", "on_train_begin"):
    setattr(StopAt, _name, _hook(_name))


class Counting(keras.optimizers.Optimizer):
    """Each step adds 1 to every number: a step that is half done shows.

    Args:
        breaks_at: int. Which variable's update raises `Stop`, or `None`.
    """

    def __init__(self, breaks_at=None):
        super().__init__(learning_rate=1.0)
        self.breaks_at = breaks_at

    def update_step(self, gradient, variable, learning_rate):
        """Adds 1."""
        if self.breaks_at is not None:
            self.breaks_at -= 1
            if self.breaks_at < 0:
                raise Stop("amid an update")
        self.assign_add(variable, ops.ones(variable.shape))


def counted(model):
    """How many steps the numbers have seen, of a model that began at zeros: one if all is whole."""
    trained = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    steps = set(np.concatenate([np.unique(value) for value in trained]).tolist())
    return steps | {float(ops.convert_to_numpy(model.optimizer.iterations))}


def variables(model):
    """What a step may change, and what it must not: what is trained, the backbone."""
    return [*model.trainable_variables, *model.optimizer.variables, *model.backbone.weights]


def values(model):
    """Their numbers; it raises where some have none."""
    return [ops.convert_to_numpy(v) for v in variables(model)]
