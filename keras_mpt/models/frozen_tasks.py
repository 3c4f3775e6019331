"""What a model trains of what its tasks share, and tasks that training leaves as they are.

A prompt-tuned model's config says both. `train_shared` may also be set on the prompt layer, or on
the config itself, and is taken in when the config is next asked for, or trained by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.checks import check_flag
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.fitting.frozen import freeze
from keras_mpt.fitting.kept import Kept, KeptPart
from keras_mpt.fitting.recompile import follow_trained


class FrozenTasks(Kept):
    """The tasks of a model that training leaves as they are, with what they share.

    Args:
        model: a prompt-tuned model.
        config: its config.
    """

    def __init__(self, model: Any, config: PromptTuningConfig) -> None:
        self._model = model
        self.config = config
        # As it was last taken in.
        self.train_shared = _trains_shared(config)

    def layers(self) -> list[keras.layers.Layer]:
        """What they share with the other tasks in the head."""
        shared: list[keras.layers.Layer] = self._model.head.shared_layers()
        return shared if self._tasks() else []

    def parts(self) -> list[KeptPart]:
        """Their factors and heads."""
        of, model = self._tasks(), self._model
        parts = [*model.prompt.parts_of(of), *model.head.parts_of(of)] if of else []
        return [KeptPart(*part) for part in parts]

    def settle(self) -> None:
        """Takes `train_shared` over from the prompt or the config, where it was set there."""
        config = self.config
        if not isinstance(config, MultitaskPromptTuningConfig):
            return
        for value in (config.train_shared, self._model.prompt.train_shared):
            if value != self.train_shared:
                config.train_shared = self.train_shared
                set_train_shared(self._model, value)
                return

    def _tasks(self) -> list[int]:
        config = self.config
        if not isinstance(config, MultitaskPromptTuningConfig):
            return []
        places = {name: k for k, name in enumerate(config.names)} if config.frozen_tasks else {}
        return [places[name] for name in config.frozen_tasks or []]


def set_train_shared(model: Any, value: bool) -> None:
    """Trains P from now on, or not; see `PromptTunedModel.train_shared`."""
    is_trained, config = check_flag("train_shared", value), model.kept.config
    if not isinstance(config, MultitaskPromptTuningConfig):
        raise ValueError(
            "`train_shared` should be left as it is in a model of one prompt, which `trainable` "
            f"freezes. Received: train_shared={value!r}"
        )
    frozen = None if is_trained else config.frozen_tasks
    model.set_config(dataclasses.replace(config, train_shared=is_trained, frozen_tasks=frozen))
    follow_trained(model)


def follow_config(model: Any, config: PromptTuningConfig) -> None:
    """Gives a model another config, and freezes and thaws what that says."""
    kept = model.kept
    thawed = kept.layers()
    kept.config, kept.train_shared = config, _trains_shared(config)
    if isinstance(config, MultitaskPromptTuningConfig):
        model.prompt.train_shared = config.train_shared
    frozen = kept.layers()
    for layer in frozen:
        freeze(layer)
    for layer in thawed if not frozen else []:
        layer.trainable = model.trainable


def trained_numbers(variables: Sequence[keras.Variable], kept: Sequence[KeptPart]) -> int:
    """How many numbers are trained.

    Args:
        variables: those that are trained.
        kept: the parts of them that are not.
    """
    sizes = {id(v): int(np.prod(v.shape)) for v in variables}
    for variable, mask in kept:
        if id(variable) in sizes:
            sizes[id(variable)] -= int(np.broadcast_to(mask, variable.shape).sum())
    return sum(sizes.values())


def _trains_shared(config: PromptTuningConfig) -> bool:
    return bool(getattr(config, "train_shared", True))
