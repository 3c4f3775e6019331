"""What stands after the backbone for some of a bank's adapters, and how rows run through both."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

import keras
import numpy as np
from keras import ops

from keras_mpt.adapters.directory import saved_shape
from keras_mpt.adapters.embedding_scale import embedding_scale
from keras_mpt.adapters.reading import Adapter
from keras_mpt.arrays import to_numpy
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType, member
from keras_mpt.decoding.compiled import CompiledFunctions
from keras_mpt.fitting.recompile import forget_if_changed
from keras_mpt.heads.pooling import POOLS
from keras_mpt.heads.task_heads import NO_CLASS
from keras_mpt.models.prompt_tune import head_arguments, prompt_tune
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.splicing.view import View
from keras_mpt.splicing.virtual_ids import VirtualIds
from keras_mpt.types import Backbone, Task, Tensor, Tensors


class Given(NamedTuple):
    """What one compiled call is given.

    Attributes:
        x: dict of the backbone's inputs, virtual tokens among them, each (B, columns).
        table: float array (B, R, M·d). Each row's virtual tokens.
        places: list with an int array (B, S) per token input. The columns of the user's tokens.
        mask: int array (B, S). The user's own, of the first token input.
    """

    x: dict[str, Any]
    table: Any
    places: list[Any]
    mask: Any


class Kind:
    """Adapters that differ in their numbers alone: one model stands for all of them.

    Args:
        base: a keras-hub backbone or task.
        splice: how rows with their own prompts enter the backbone.
        task_type: the adapters' task type.
        adapter: one of them, whose head is built.
        **kwargs: further arguments of the model, such as `preprocessor`.
    """

    def __init__(
        self,
        base: Backbone | Task,
        splice: VirtualIds,
        task_type: TaskType,
        adapter: Adapter,
        **kwargs: Any,
    ) -> None:
        config = PromptTuningConfig(
            task_type=task_type,
            num_virtual_tokens=1,
            num_transformer_submodules=splice.submodules,
        )
        kwargs = {**_settings(adapter), **kwargs}
        if task_type in (TaskType.SEQ_CLS, TaskType.TOKEN_CLS):
            kwargs["num_classes"] = 1
        self.model: PromptTunedModel = prompt_tune(base, config, initialize=False, **kwargs)
        self.task_type = self.model.config.task_type
        self.splice = splice
        self.functions = CompiledFunctions(self.model)
        # A row per token input: of an adapter with M prompts, the first M.
        every: Any = View(
            self.splice,
            num_virtual_tokens=1,
            num_transformer_submodules=splice.submodules,
        )
        self.embedding_scale = embedding_scale(every, self.model.backbone)
        # Linear where the adapters bring one along, else keras-hub's own, which is frozen.
        self.head = cast(Any, self.model.head)
        self.has_classes = self.head.has_classes
        weights = self.head.weights()
        own = self.head.layer.weights if weights else []
        self._output = [n for n, v in weights.items() if any(v is o for o in own)]
        self._below = {n: v for n, v in weights.items() if n not in self._output}

    def forget_if_changed(self) -> None:
        """Forgets what was compiled for a backbone that is no longer what it was."""
        before = self.model.compiled_for
        forget_if_changed(self.model)
        if before not in (None, self.model.compiled_for):
            self.functions.forget()

    def head_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The shapes of an adapter's head in its file, the output's last.

        Args:
            num_classes: int. All of its tasks' classes together.
        """
        weights = self.head.weights()
        shapes = {name: saved_shape(variable) for name, variable in self._below.items()}
        for name in self._output:
            classes, *width = saved_shape(weights[name])
            shapes[name] = (num_classes if self.has_classes else classes, *width)
        return shapes

    def features(self, given: Given) -> Any:
        """The user's positions of the backbone's outputs, or what heads read of them.

        Args:
            given: the batch.

        Returns:
            NumPy arrays, or with layers below a head the backbone's own outputs, as tensors.
        """
        found = self.functions.of(_features, self)(given)
        return found if self._below else keras.tree.map_structure(to_numpy, found)

    def of_head(self, features: Any, head: dict[str, np.ndarray], rows: list[int]) -> np.ndarray:
        """All outputs of one adapter's head for some rows, float32 (N, …, C).

        Args:
            features: what `features` gave.
            head: the adapter's head.
            rows: list of N ints.
        """
        if self._below:
            for name, variable in self._below.items():
                variable.assign(head[name])
            # Of all rows: their number is compiled.
            features = to_numpy(self.functions.of(_below, self)(features))
        weight, *bias = (head[name] for name in self._output)
        found = features[rows].astype("float32") @ weight
        return np.asarray(found + bias[0] if bias else found)

    def finished(self, logits: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Logits as the model gives them.

        Args:
            logits: float array (B, …, C).
            mask: int array (B, S), the user's own.
        """
        if self.task_type != TaskType.QUESTION_ANS:
            return logits
        logits = logits.transpose(0, 2, 1)
        return logits if mask is None else np.where(mask[:, None] != 0, logits, NO_CLASS)


def task_type_of(base: Any, task_type: TaskType | str | None) -> TaskType | None:
    """The task type of all of a bank's adapters, as far as it is known.

    Args:
        base: a keras-hub backbone or task.
        task_type: as the bank was given it, or `None`.

    Raises:
        ValueError: a base that no bank can have, or another task type than the base's.
    """
    import keras_hub

    tasks = keras_hub.models
    given = None if task_type is None else member(TaskType, "task_type", task_type)
    found: TaskType | None = None
    if isinstance(base, tasks.TextClassifier):
        found = TaskType.SEQ_CLS
    elif isinstance(base, tasks.CausalLM):
        has_decoder = "decoder_token_ids" in (t.name for t in base.backbone.inputs)
        found = TaskType.SEQ_2_SEQ_LM if has_decoder else TaskType.CAUSAL_LM
    elif not hasattr(base, "inputs") or isinstance(base, tasks.Task):
        raise ValueError(
            "`base` should be a keras-hub Backbone, TextClassifier, CausalLM or Seq2SeqLM. "
            f"Received: a {type(base).__name__}"
        )
    if None not in (given, found) and given != found:
        raise ValueError(
            f"`task_type` should be {str(found)!r} or None for this base. Received: "
            f"task_type={str(given)!r}"
        )
    return given or found


def kind_key(adapter: Adapter, task_type: TaskType) -> str:
    """What adapters of one kind have alike; a dropout is none of it, as nothing is trained."""
    settings = _settings(adapter)
    of_head = {k: v for k, v in (settings.pop("head_config", None) or {}).items() if k != "dropout"}
    return json.dumps([task_type, settings, of_head], sort_keys=True, default=str)


def _settings(adapter: Adapter) -> dict[str, Any]:
    """How an adapter's head is built, but for its classes."""
    found = head_arguments(adapter)
    return {name: found[name] for name in ("pooling", "head_config") if name in found}


def _features(kind: Kind, given: Given) -> Tensors:
    """As `Kind.features`, as a function to compile."""
    model, splice = kind.model, kind.splice
    x = {name: ops.cast(value, "int32") for name, value in given.x.items()}
    outputs = splice(x, given.table, training=False)
    if kind._below:
        return keras.tree.flatten(outputs)
    users = splice.at_places(outputs, given.places)
    match kind.task_type:
        case TaskType.CAUSAL_LM | TaskType.SEQ_2_SEQ_LM:
            return kind.head(keras.tree.flatten(users), training=False)
        case TaskType.SEQ_CLS:
            if model.pooling not in POOLS:
                return _below(kind, keras.tree.flatten(outputs))
            mask = None if isinstance(given.mask, tuple) else given.mask
            return POOLS[model.pooling](splice.follows_first_input(users), mask)
        case TaskType.TOKEN_CLS | TaskType.QUESTION_ANS:
            return splice.follows_first_input(users)
    return users


def _below(kind: Kind, outputs: list[Tensor]) -> Tensor:
    """The layers between the backbone and a head's output, with what they have been assigned."""
    return kind.model.features(outputs, training=False)
