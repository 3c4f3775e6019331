"""Data as `fit` trains on them: text tokenized, all of it checked, at once or batch by batch."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import numpy as np

from keras_mpt import _keras
from keras_mpt.checks import received
from keras_mpt.config import MultitaskPromptTuningConfig
from keras_mpt.data.columns import as_array
from keras_mpt.data.task_mix import TaskMix
from keras_mpt.data.texts import PROMPTS, RESPONSES, TEXT_NAMES
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.model_inputs import ModelInputs, in_memory
from keras_mpt.fitting.padding_cut import PaddingCut
from keras_mpt.fitting.partial_batches import take_partial_batches
from keras_mpt.fitting.step_data import Measured
from keras_mpt.fitting.stream_widths import StreamWidths
from keras_mpt.fitting.streams import is_stream, map_batches, number_of_batches
from keras_mpt.fitting.target_positions import TARGET_POSITIONS
from keras_mpt.fitting.text_lengths import answers_alone
from keras_mpt.fitting.tokenization import tokenize
from keras_mpt.fitting.weights import check_weights, checked_weights_tf
from keras_mpt.types import Data, TargetData, Tensor

Batch = tuple[Data, TargetData, TargetData]


class Preparation:
    """The one way that data take into a model.

    Args:
        inputs: the model's inputs.
        check_targets: function of a batch's checked inputs and targets that refuses wrong ones.
        with_targets: bool. `False` leaves targets and weights out. Defaults to `True`.
        needs_targets: bool. Whether data without targets are refused. Defaults to `False`.
        adds_positions: bool. Whether inputs get the positions of the targets that count, where that
            is worth it: a model then computes nothing at the others. Defaults to `False`.
        cut: what leaves out the padding of a `TaskMix`'s batches of like length. Defaults to
            `None`: it stays.
        for_step: bool. Whether nobody but Keras sees the data. Defaults to `True`.
    """

    def __init__(
        self,
        inputs: ModelInputs,
        check_targets: Callable[[dict[str, Tensor], TargetData], None],
        with_targets: bool = True,
        needs_targets: bool = False,
        adds_positions: bool = False,
        cut: PaddingCut | None = None,
        for_step: bool = True,
    ) -> None:
        self.inputs = inputs
        self.check_targets = check_targets
        self.with_targets = with_targets
        self.needs_targets = needs_targets
        self.adds_positions = adds_positions
        self.cut = cut
        self.for_step = for_step
        # The words of errors that were raised within another library, which may wrap them.
        self.errors: list[str] = []

    def __call__(self, x: Data, y: TargetData = None, sample_weight: TargetData = None) -> Batch:
        """Data checked and tokenized; a stream's batches when they are read."""
        if is_stream(x):
            is_tf = keras.backend.backend() == "tensorflow"
            is_first = itertools.chain([is_tf], itertools.repeat(False))
            # The shapes of an only batch would be those of what comes in later epochs.
            is_only = is_tf and number_of_batches(x) == 1
            is_cut = isinstance(x, TaskMix) and x.bucket_by_length and not is_only
            cut = self.cut if is_cut else None
            packs = self.inputs.packing is not None
            per_token = packs or (cut is not None and cut.targets.per_token)
            varies = is_tf and (self.inputs.packs_text or cut is not None)
            # Of a mix Keras makes the batches anew that it has looked at.
            given = self.inputs, per_token, is_only, cut is not None and self.for_step
            widths = StreamWidths(*given) if varies else None
            adds = self.adds_positions and not is_only
            ids = self._ids_of_mix(x)
            arrays = functools.partial(self._of_stream, ids, adds, is_first, widths, cut)
            noting = self._noting(arrays), self._noting(self._tensors)
            stream = map_batches(x, *noting, self._is_whole(x, adds))
            return stream, y, sample_weight
        x, y, sample_weight = self._arrays(x, y, sample_weight)
        if self.adds_positions and target_positions.have_weights(y, sample_weight):
            positions = target_positions.find(sample_weight)
            if target_positions.are_few(positions, y.shape[1]):
                x = {**x, TARGET_POSITIONS: positions}
        return x, y, sample_weight

    def _is_whole(self, x: Data, adds_positions: bool) -> bool:
        """Whether a mix's batches are prepared with all their parts."""
        if not isinstance(x, TaskMix):
            return False
        # JAX's devices take parts of one shape, and text is as wide as the longest row.
        is_of_several = keras.backend.backend() == "jax" and x.shard[1] > 1
        varies = self.inputs.packs_text or adds_positions
        return x.bucket_by_length or (is_of_several and varies)

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
        sample_weight = as_array(sample_weight)
        check_weights(sample_weight)
        x, y, sample_weight = self._tokenized(x, as_array(y), sample_weight)
        x = in_memory(self._checked(x, y))
        return x, y, self._of_answers(x, y, sample_weight)

    def _of_stream(
        self,
        ids: np.ndarray | None,
        adds_positions: bool,
        is_first: Iterator[bool],
        widths: StreamWidths | None,
        cut: PaddingCut | None,
        x: Data,
        *targets: Any,
    ) -> Batch:
        """The same of a stream's batch: all of them have the same inputs.

        Args:
            ids: int array. The model's id of each task of a `TaskMix`; `None` where ids are its.
            adds_positions: bool. Whether its batches get the positions of targets that count.
            is_first: whether a batch is the first of a stream on TensorFlow. Keras takes the first
                two batches for the shapes of all; so their numbers of positions must differ.
            widths: what makes their widths differ there, where they may; else `None`.
            cut: what leaves out padding, or `None`.
            x: the batch's inputs.
            *targets: its targets and their weights.
        """
        if ids is not None:
            x = {**x, "task_ids": ids[x["task_ids"]]}
        is_text = isinstance(x, dict) and any(name in x for name in TEXT_NAMES)
        x, y, sample_weight = self._arrays(x, *targets)
        widest = None
        is_packed = is_text and self.inputs.packs_text
        if cut is not None:
            x, y, sample_weight, widest = cut(x, y, sample_weight)
        if widths is not None and (is_packed or widest is not None):
            x, y, sample_weight = widths(x, y, sample_weight, None if is_packed else widest)
        if adds_positions and target_positions.have_weights(y, sample_weight):
            positions = target_positions.find(sample_weight)
            if next(is_first):
                positions = target_positions.with_a_size_of_its_own(positions, y.shape[1])
            x = {**x, TARGET_POSITIONS: positions}
        return x, y, sample_weight

    def _tensors(self, *data: Any) -> Batch:
        """The same inside `tf.data`."""
        x, y, sample_weight = (*data, None, None)[:3]
        sample_weight = checked_weights_tf(sample_weight, self._noting(check_weights))
        x, y, sample_weight = self._tokenized(x, y, sample_weight)
        x = self.inputs.prepare_tf(x, y, self._noting(self._checked))
        sample_weight = self._of_answers(x, y, sample_weight)
        if self.adds_positions and target_positions.have_weights(y, sample_weight):
            x = {**x, TARGET_POSITIONS: target_positions.find_tf(sample_weight)}
        return x, y, sample_weight

    def _tokenized(self, x: Data, y: TargetData = None, sample_weight: TargetData = None) -> Batch:
        given, noting, with_targets = x, self._noting, self.with_targets
        x, y, sample_weight = tokenize(self.inputs, x, y, sample_weight, noting, with_targets)
        if not self.with_targets:
            return x, None, None
        if self.needs_targets:
            check_has_targets(given, y)
        return x, y, sample_weight

    def _checked(self, x: Data, y: TargetData = None) -> dict[str, Tensor]:
        x = self.inputs.prepare(x)
        if y is not None:
            self.check_targets(x, y)
        return x

    def _of_answers(self, x: Data, y: TargetData, sample_weight: TargetData) -> TargetData:
        """Weights of each target where prompts stand after the text, which they do not reach."""
        splice = self.inputs.splice
        if y is None or not splice.is_after or getattr(sample_weight, "ndim", 1) != 1:
            return sample_weight
        return answers_alone(x, str(splice.token_inputs[0].mask_name), sample_weight)

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which also notes the words of its errors."""

        def noted(*args: Any) -> Any:
            try:
                return function(*args)
            except ValueError as error:
                self.errors.append(str(error))
                raise

        return noted

    def _ids_of_mix(self, stream: Any) -> np.ndarray | None:
        """The model's id of each of a `TaskMix`'s tasks, whose own ids are places in the mix.

        `None` where the stream is no mix, or the model has no tasks.
        """
        if not isinstance(stream, TaskMix) or not self.inputs.has_tasks:
            return None
        given = stream.task_names
        own = {name: k for k, name in enumerate(self.inputs.task_names)}
        if all(name in own for name in given):
            return np.array([own[name] for name in given], "int32")
        config = self.inputs.config
        assert isinstance(config, MultitaskPromptTuningConfig)
        if config.task_names is None and len(given) == len(own):
            return None
        raise ValueError(
            f"`x` should mix tasks that the model has, {received(list(own))}. Received: x with "
            f"tasks {received(list(given))}"
        )


class Prepared(Measured, Protocol):
    """What is asked of a model here: a `Fitting` has it."""

    # As `keras.Model` has them.
    compiled: Any
    loss: Any

    @property
    def takes_positions(self) -> bool:
        """Whether a call gives outputs at `target_positions` alone, where its inputs have these."""


def preparation_of(
    model: Prepared, with_targets: bool = True, needs_targets: bool = True, for_step: bool = True
) -> Preparation:
    """The way that data take into a model.

    Args:
        model: the model.
        with_targets: as in `Preparation`. Defaults to `True`.
        needs_targets: bool. Whether data without targets are refused, where there is a loss.
            Defaults to `True`.
        for_step: bool. Whether the model is trained or evaluated on them, and nobody else sees
            them. Defaults to `True`.
    """

    def check_targets(x: dict[str, Tensor], y: TargetData) -> None:
        if model.objective is not None:
            model.targets.check(model.model_inputs, x, y, model.objective)

    take_partial_batches()
    needs_targets = needs_targets and bool(model.compiled) and model.loss is not None
    positions = for_step and model.takes_positions and target_positions.suffice(model.objective)
    inputs = model.model_inputs
    cut = PaddingCut(model) if with_targets else None
    wanted = with_targets, needs_targets, positions
    return Preparation(inputs, check_targets, *wanted, cut, for_step)


def build_from(
    model: keras.Model, x: Data, y: TargetData = None, sample_weight: TargetData = None
) -> Data:
    """Builds the loss and the metrics, where Keras would run an epoch's hooks to get a batch.

    `TaskMix` would count that one as an epoch. TensorFlow builds them as it traces a step, but
    under a strategy.

    Returns:
        `x`; of a generator, one that begins with the same batch.
    """
    has_strategy = _keras.has_strategy(model)
    if isinstance(x, keras.utils.PyDataset):
        if has_strategy or keras.backend.backend() != "tensorflow":
            # Anew: on TensorFlow the first batch of a preparation is made for Keras to look at, and
            # here a model is called with it.
            stream, _, _ = preparation_of(model, for_step=not has_strategy)(x.dataset)
            _keras.build_from_batch(model, stream[0])
    elif has_strategy:
        batch: Any = getattr(x, "element_spec", (x, y, sample_weight))
        if hasattr(x, "__next__"):
            batch = next(x)
            x = itertools.chain([batch], x)
        _keras.build_from_batch(model, batch)
    return x


def check_has_targets(x: Data, y: TargetData) -> None:
    """Refuses data without targets where a loss is to be computed of them."""
    if y is None and isinstance(x, dict) and PROMPTS in x and RESPONSES not in x:
        raise ValueError(
            "`x` should have 'responses' beside 'prompts', or `y` the classes of tasks with label "
            f"words: the loss is computed of them. Received: x with {list(x)} and y=None"
        )
    if y is None:
        raise ValueError(
            "`y` should be given: the loss is computed of it, unless `compile` was given "
            "`loss=None`. Received: y=None"
        )
