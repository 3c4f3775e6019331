"""Data as `fit` trains on them: text tokenized, all of it checked, at once or batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from keras_mpt.config import MultitaskPromptTuningConfig
from keras_mpt.data.columns import as_array
from keras_mpt.fitting.model_inputs import ModelInputs, in_memory
from keras_mpt.fitting.streams import is_stream, map_batches
from keras_mpt.types import Data, TargetData, Tensor

Batch = tuple[Data, TargetData, TargetData]


class Preparation:
    """The one way that data take into a model.

    Args:
        inputs: the model's inputs.
        check_targets: function of a batch's checked inputs and targets that refuses wrong ones.
        with_targets: bool. `False` leaves targets and weights out. Defaults to `True`.
        needs_targets: bool. Whether data without targets are refused. Defaults to `False`.
    """

    def __init__(
        self,
        inputs: ModelInputs,
        check_targets: Callable[[dict[str, Tensor], TargetData], None],
        with_targets: bool = True,
        needs_targets: bool = False,
    ) -> None:
        self.inputs = inputs
        self.check_targets = check_targets
        self.with_targets = with_targets
        self.needs_targets = needs_targets
        # The words of errors that were raised within another library, which may wrap them.
        self.errors: list[str] = []

    def __call__(self, x: Data, y: TargetData = None, sample_weight: TargetData = None) -> Batch:
        """Data checked and tokenized; a stream's batches when they are read."""
        if is_stream(x):
            self._check_task_names(x)
            stream = map_batches(x, self._noting(self._arrays), self._noting(self._tensors))
            return stream, y, sample_weight
        return self._arrays(x, y, sample_weight)

    @contextlib.contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Turns an error that `tf.data` has wrapped in its own back into the plain one."""
        try:
            yield
        except Exception as error:
            plain = next((text for text in self.errors if text in str(error)), str(error))
            if plain != str(error):
                raise ValueError(plain) from None
            raise

    def _arrays(self, x: Data, y: TargetData = None, sample_weight: TargetData = None) -> Batch:
        x, y, sample_weight = self._tokenized(x, as_array(y), as_array(sample_weight))
        return in_memory(self._checked(x, y)), y, sample_weight

    def _tensors(self, *data: Any) -> Batch:
        """The same inside `tf.data`."""
        x, y, sample_weight = self._tokenized(*data)
        return self.inputs.prepare_tf(x, y, self._noting(self._checked)), y, sample_weight

    def _tokenized(self, *data: Any) -> Batch:
        x, y, sample_weight = self.inputs.tokenize(*data)
        if not self.with_targets:
            return x, None, None
        if self.needs_targets:
            check_has_targets(y)
        return x, y, sample_weight

    def _checked(self, x: Data, y: TargetData = None) -> dict[str, Tensor]:
        x = self.inputs.prepare(x)
        if y is not None:
            self.check_targets(x, y)
        return x

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which also notes the words of its errors."""

        def noted(*args: Any) -> Any:
            try:
                return function(*args)
            except ValueError as error:
                self.errors.append(str(error))
                raise

        return noted

    def _check_task_names(self, stream: Any) -> None:
        """Refuses a `TaskMix` of other tasks: its ids are numbers in its own order."""
        config, given = self.inputs.config, getattr(stream, "task_names", None)
        own = config.task_names if isinstance(config, MultitaskPromptTuningConfig) else None
        if own is not None and given is not None and given != own:
            raise ValueError(
                f"`x` should mix the model's tasks in the model's order, {own}. Received: x with "
                f"tasks {given}"
            )


def check_has_targets(y: TargetData) -> None:
    """Refuses data without targets where a loss is to be computed of them."""
    if y is None:
        raise ValueError(
            "`y` should be given: the loss is computed of it, unless `compile` was given "
            "`loss=None`. Received: y=None"
        )
