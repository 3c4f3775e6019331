"""What a prompt-tuned model takes as input: the checks.

All entrances (a direct call, arrays, each kind of stream) lead through here, so that bad input gets
the same error everywhere, before anything is trained.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mpt._keras import in_symbolic_scope
from keras_mpt.arrays import as_arrays, concrete, to_numpy
from keras_mpt.checks import (
    check_dense,
    check_integers,
    check_mask,
    check_table_ids,
    check_token_ids,
)
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.data.texts import TEXT_NAMES
from keras_mpt.fitting.label_words import LabelWords, label_words
from keras_mpt.fitting.mask_positions import MASK_POSITIONS, check_mask_positions
from keras_mpt.fitting.mask_text import MaskText
from keras_mpt.fitting.packing import Packing
from keras_mpt.fitting.target_positions import TARGET_POSITIONS
from keras_mpt.fitting.text_lengths import check_text_lengths
from keras_mpt.prompts.task_ids import check_task_ids
from keras_mpt.splicing.cut import TokenInput
from keras_mpt.splicing.splice import TEXT_LENGTHS, Splice
from keras_mpt.types import Data, Preprocessor, Tensor


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """The inputs of one model.

    Attributes:
        config: the model's config.
        splice: the model's splice, which knows the backbone's inputs.
        preprocessor: keras-hub preprocessor, or `None` where the model takes no text.
        takes_mask_positions: whether the model takes `mask_positions` beside the backbone's inputs.
        packing: how a language model's prompts and responses become tokens; `None` for others.
        mask_text: how a masked language model's texts do that hold the mask token; likewise.
    """

    config: PromptTuningConfig
    splice: Splice
    preprocessor: Preprocessor | None = None
    takes_mask_positions: bool = False
    packing: Packing | None = None
    mask_text: MaskText | None = None

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of all inputs."""
        names = [n for t in self.splice.token_inputs for n in (t.name, t.mask_name, *t.other_names)]
        names += [n for n in self.splice.graph.plain_names if n not in names]
        names += [MASK_POSITIONS] * self.takes_mask_positions
        names += [TEXT_LENGTHS] * self.splice.is_after
        return [n for n in names if n is not None] + ["task_ids"] * self.has_tasks

    @functools.cached_property
    def has_tasks(self) -> bool:
        """Whether the model takes `task_ids`."""
        return isinstance(self.config, MultitaskPromptTuningConfig)

    @property
    def task_names(self) -> list[str]:
        """The tasks' names, in their order; none where there are no tasks."""
        config = self.config
        return config.names if isinstance(config, MultitaskPromptTuningConfig) else []

    @property
    def label_words(self) -> LabelWords:
        """The tasks' classes as words and as tokens, those that the config has now."""
        given, found = vars(self).get("_words", (None, None))
        if found is None or given != self.config.label_words:
            self.config.check_labels()
            size, one = self.splice.vocabulary_sizes[-1], self.takes_mask_positions
            found = label_words(self.config, self.preprocessor, size, one_token=one)
            # A copy: whoever has the config may change its lists.
            vars(self)["_words"] = copy.deepcopy(self.config.label_words), found
        return found

    def packed(self, truncation_side: str | None, add_end_token: bool) -> ModelInputs:
        """The same of a language model, which takes prompts and responses if it takes text.

        Args:
            truncation_side: as in `Packing`.
            add_end_token: as in `Packing`.
        """
        if self.preprocessor is None:
            return self
        packing = Packing(self.splice, self.preprocessor, truncation_side, add_end_token)
        return dataclasses.replace(self, packing=packing)

    @property
    def packs_text(self) -> bool:
        """Whether rows of text are put together here, each batch as wide as its longest row."""
        return self.packing is not None or self.mask_text is not None

    def with_masks(self, truncation_side: str | None) -> ModelInputs:
        """The same of a masked language model, which takes texts with a mask if it takes text.

        Args:
            truncation_side: as in `MaskText`.
        """
        has_text = self.preprocessor is not None
        text = MaskText(self.splice, self.preprocessor, truncation_side) if has_text else None
        return dataclasses.replace(self, takes_mask_positions=True, mask_text=text)

    def prepare(self, x: Data) -> dict[str, Tensor]:
        """Checked inputs with values: task names become task ids.

        Args:
            x: dict of inputs.

        Returns:
            A dict of the backbone's inputs and `task_ids`.
        """
        if isinstance(x, dict):
            check_dense(x)
            x = as_arrays(x)
        return self.check(x)

    def prepare_tf(
        self, x: dict[str, Tensor], y: Tensor | None, check: Callable[..., dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """As `prepare`, inside `tf.data`.

        Args:
            x: dict of tensors.
            y: targets, or `None`.
            check: function of a dict of arrays, and of targets where there are any, that gives the
                checked dict.

        Returns:
            A dict of tensors.
        """
        import tensorflow as tf

        check_dense(x)
        # Shapes are checked at once: the values only after the model was traced with them.
        self.check_shapes(x)
        names = [n for n in self.names if n in x]
        result = "task_ids" if self.has_tasks else names[0]

        def check_values(*values: Tensor) -> Tensor:
            given = dict(zip(names, values, strict=False))
            return check(given, *values[len(names) :])[result]

        values = [*(x[name] for name in names), *([y] if tf.is_tensor(y) else [])]
        dtype = tf.int32 if self.has_tasks else x[result].dtype
        checked = tf.numpy_function(check_values, values, dtype, stateful=False)
        shape = [None] if self.has_tasks else x[result].shape
        return {**x, result: tf.ensure_shape(checked, shape)}

    def check(self, x: Data) -> dict[str, Tensor]:
        """Inputs after all checks that can be made of what is known: names, shapes and values.

        Raises:
            ValueError: missing or unknown names, a mask that does not match or is not of 1 and 0, a
                sequence that with the prompt is too long for the backbone, token ids outside the
                vocabulary, segments that the backbone does not have, or task ids of no task.
        """
        self.check_shapes(x)
        x = {name: value for name, value in x.items() if value is not None}
        splice = self.splice
        for i, (token_input, size) in enumerate(
            zip(splice.token_inputs, splice.vocabulary_sizes, strict=True)
        ):
            ids = concrete(x[token_input.name], token_input.name)
            if ids is not None:
                check_integers(token_input.name, ids)
                check_token_ids(token_input.name, ids, size)
            is_prompted = i < splice.num_transformer_submodules
            self._check_beside_ids(x, token_input, is_prompted)
        if self.takes_mask_positions:
            check_mask_positions(x, splice.token_inputs[0])
        if splice.is_after:
            check_text_lengths(x, str(splice.token_inputs[0].mask_name))
        if self.has_tasks:
            shape = _shape(x[splice.token_inputs[0].name])
            batch_size = None if shape is None else shape[0]
            names = self.task_names
            x["task_ids"] = check_task_ids(x["task_ids"], len(names), batch_size, names)
        return x

    def _check_beside_ids(
        self, x: dict[str, Tensor], token_input: TokenInput, is_prompted: bool
    ) -> None:
        """Refuses a mask, segments or positions that cannot be meant."""
        name = token_input.mask_name
        mask = None if name is None else concrete(x[name], name)
        if name is not None and mask is not None:
            check_integers(name, mask, "iufb")
            check_mask(name, mask)
            if self.splice.at and is_prompted:
                _check_start_tokens(mask, name)
        for name in token_input.other_names:
            ids = concrete(x[name], name) if name in x else None
            if ids is not None:
                check_integers(name, ids, "iufb")
                is_moved = is_prompted and name in token_input.position_names
                taken = self.splice.num_virtual_tokens if is_moved else 0
                check_table_ids(name, ids, self.splice.table_rows[name], taken)

    def check_shapes(self, x: Data) -> None:
        """Refuses inputs that are missing, unknown, of another shape or too long."""
        self.check_names(x)
        length = self.splice.num_virtual_tokens
        for i, token_input in enumerate(self.splice.token_inputs):
            shape = _shape(x[token_input.name])
            if shape is None:
                continue
            if len(shape) != 2:
                raise ValueError(
                    f"`{token_input.name}` should have shape (batch_size, sequence_length). "
                    f"Received: {token_input.name} of shape {shape}"
                )
            if shape[0] == 0:
                raise ValueError(
                    f"`{token_input.name}` should have at least one row. Received: "
                    f"{token_input.name} of shape {shape}"
                )
            if shape[1] == 0:
                raise ValueError(
                    f"`{token_input.name}` should have at least one token per row. Received: "
                    f"{token_input.name} of shape {shape}"
                )
            for name in (token_input.mask_name, *token_input.other_names):
                _check_same_shape(x, name, token_input.name, shape)
            prompted = i < self.splice.num_transformer_submodules
            limit = self.splice.max_sequence_length
            total = None if shape[1] is None else shape[1] + length * prompted
            if limit is not None and total is not None and total > limit:
                to = (
                    "" if self.preprocessor is None else " (`preprocessor.sequence_length` sets it)"
                )
                raise ValueError(
                    f"`{token_input.name}` should have at most {limit - length * prompted} tokens: "
                    f"the backbone has {limit} positions and the prompt takes "
                    f"{length * prompted}{to}. Received: {token_input.name} of shape {shape}"
                )

    def check_names(self, x: Data) -> None:
        """Refuses inputs that are missing or unknown."""
        if not isinstance(x, dict):
            or_text = "" if self.preprocessor is None else ", or with 'text' in the place of tokens"
            raise ValueError(
                f"`x` should be a dict with {self.names}{or_text}. Received: x of type "
                f"{type(x).__name__}"
            )
        if self.has_tasks and x.get("task_ids") is None:
            check_task_ids(None, len(self.task_names))
        optional = {name for t in self.splice.token_inputs for name in t.other_names}
        optional.add(TEXT_LENGTHS)
        if self.preprocessor is None and any(n in x for n in TEXT_NAMES):
            raise ValueError(
                "`preprocessor` should be given to the model for it to take text. Received: "
                "preprocessor=None"
            )
        text = [name for name in TEXT_NAMES if name in x]
        if text:  # `fit` and its like have made tokens of it by now.
            raise ValueError(
                "`x` should hold tokens where a model is called: `predict`, `evaluate` and `fit` "
                "take text, and `model.prepared(x)[0]` gives its tokens. Received: x with "
                f"{text}"
            )
        missing = [n for n in self.names if x.get(n) is None and n not in optional]
        # Keras works out a step's shapes outside of it, of data that were checked.
        added = [TARGET_POSITIONS] if in_symbolic_scope() else []
        unknown = [n for n in x if n not in (*self.names, *added)]
        if missing or unknown:
            or_text = "" if self.preprocessor is None else ", or 'text' in their place"
            raise ValueError(
                f"`x` should have the inputs {self.names}{or_text}. Received: x without {missing} "
                f"and with unknown {unknown}"
            )


def _shape(tensor: Tensor) -> tuple[Any, ...] | None:
    """The shape, or `None` where a traced tensor does not even know its rank."""
    return None if getattr(tensor.shape, "rank", 0) is None else tuple(tensor.shape)


def _check_same_shape(
    x: dict[str, Tensor], name: str | None, other: str, shape: tuple[Any, ...]
) -> None:
    found = None if name is None or x.get(name) is None else _shape(x[name])
    if found is None:
        return
    matches = len(found) == len(shape) and all(
        a is None or b is None or a == b for a, b in zip(found, shape, strict=True)
    )
    if not matches:
        raise ValueError(
            f"`{name}` should have the shape of `{other}`, {shape}. Received: {name} of shape "
            f"{found}"
        )


def _check_start_tokens(mask: np.ndarray, mask_name: str) -> None:
    """A prompt after the start token needs that token in front: not so under left padding."""
    if not mask[:, 0].all():
        raise ValueError(
            f"`{mask_name}` should be 1 at each row's first token: the prompt stands behind it, so "
            f"rows should be padded on the right. Received: {mask_name} with "
            f"{int((mask[:, 0] == 0).sum())} rows that start with padding"
        )


def in_memory(x: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Every tensor of a dict as a NumPy array, for Keras to batch."""
    return {name: to_numpy(value) for name, value in x.items()}
