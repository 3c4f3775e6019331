"""All that is taken from inside Keras and keras-hub, because it has no public name.

Each function stands for one private name or a few that belong together, and says why it is needed.
Nothing else in the package uses a name of Keras's that begins with an underscore; a test looks for
them.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras.src.backend import get_keras_mask as get_keras_mask
from keras.src.backend import in_symbolic_scope as in_symbolic_scope
from keras.src.backend import set_keras_mask as set_keras_mask
from keras.src.backend.common.dtypes import PYTHON_DTYPES_MAP
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.trainers.compile_utils import MetricsList
from keras.src.utils.io_utils import ask_to_proceed_with_overwrite

from keras_mpt.types import Config, Tensor, Tensors

# `_compute_attention`: where an attention layer has queries, keys, values and mask; nothing public.
ATTENTION, _SPECIAL = "_compute_attention", "_special_token_attrs"

# `in_symbolic_scope`: whether Keras is working out shapes. On PyTorch it may do so on tensors of
# ones, whose values mean nothing and must not be checked; nothing about those tensors shows it.
#
# `get_keras_mask`, `set_keras_mask`: how a loss with `ignore_class` tells Keras which values count.


def mean_values(metric: keras.Metric) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The function of targets and outputs whose mean a metric is, or `None`.

    `_fn` and `_fn_kwargs`: what `SparseCategoricalAccuracy` and its like are the mean of, so that
    it is computed once for all tasks.
    """
    wrapper = keras.metrics.MeanMetricWrapper
    if not isinstance(metric, wrapper) or type(metric).update_state is not wrapper.update_state:
        return None
    return lambda y, y_pred: metric._fn(y, y_pred, **metric._fn_kwargs)


def compile_arguments(model: keras.Model) -> Config:
    """What `compile` was given, as objects.

    `_compile_config`: the public `get_compile_config` serializes, which a loss or a metric of the
    user's own may not bear.
    """
    return dict(model._compile_config.config)


class Monitored(MetricsList):
    """`MetricsList`: `EarlyStopping` and its like look for which way is better in those alone."""

    metrics = property(lambda self: [self])

    def __init__(self, name: str) -> None:
        keras.Metric.__init__(self, name=name)


def with_direction(made: keras.Metric, like: Any) -> keras.Metric:
    """`_direction`: what those read, as it is of another metric, "accuracy" or "loss"."""
    known = {"loss": "down", "accuracy": "up", "acc": "up"}
    direction = known.get(like.lower()) if isinstance(like, str) else None
    if like != "loss" and direction is None:
        direction = getattr(keras.metrics.get(like), "_direction", None)
    if direction is not None:
        made._direction = direction
    return made


def forget_compile_arguments(model: keras.Model) -> None:
    """Lets a `compile` with `loss=None` or `metrics=None` mean it.

    `_compile_loss` and `_compile_metrics`: Keras keeps what an earlier `compile` was given where a
    later one gives `None`.
    """
    model.loss = model._compile_loss = model._compile_metrics = None


def keep_compile_arguments(model: keras.Model, given: Config) -> None:
    """`_compile_config`: lets a model remember what `compile` was given, not what became of it."""
    model._compile_config.config.update(given)


def build_from_batch(model: keras.Model, batch: Any) -> None:
    """Builds a model's loss and metrics by a batch, or by its shapes and dtypes.

    `_symbolic_build`: `fit` would take one from the stream, and run an epoch's hooks for it.
    """
    with model.distribute_strategy.scope() if has_strategy(model) else contextlib.nullcontext():
        model._symbolic_build(data_batch=batch)


def has_strategy(model: keras.Model) -> bool:
    """`_distribute_strategy`: whether a model was made under one of TensorFlow's strategies."""
    return getattr(model, "_distribute_strategy", None) is not None


def is_validation_of_fit(kwargs: Config) -> bool:
    """`_use_cached_eval_dataset`: by which `fit` tells `evaluate` that its data are prepared."""
    return bool(kwargs.get("_use_cached_eval_dataset"))


def list_torch_parameters(model: keras.Model) -> None:
    """Makes PyTorch's list of a model's variables, which `state_dict` reads, anew.

    `_torch_params`: Keras makes it but once, while variables are replaced as tasks come and go.
    """
    if keras.backend.backend() != "torch":
        return
    for layer in (model, *model.layers):
        if hasattr(layer, "_torch_params"):
            del layer._torch_params
            layer.torch_params  # noqa: B018 (asking makes it)
    model.torch_params  # noqa: B018


# The variables that a step on JAX reads and writes, in Keras's order.
_JAX_STATE = ("trainable", "non_trainable", "optimizer", "metrics")
_JAX_STATES = {
    "train": _JAX_STATE,
    "test": ("trainable", "non_trainable", "metrics"),
    "predict": ("trainable", "non_trainable"),
}


class _Held:
    """Variables that are handed on: Keras would track a list of them as the model's own."""

    def __init__(self, variables: list[Any]) -> None:
        self.variables = variables


def settle_training(model: keras.Model) -> None:
    """Sets right how Keras trains a model.

    `_get_jax_state` and `jax_state_sync`: on JAX, Keras takes the values out of the variables,
    hands them from step to step, and puts them back at the end, if it gets there. Here the
    variables themselves are handed on, and `jax_step` makes a step that reads and writes them.

    `_maybe_symbolic_build`: under one of TensorFlow's strategies, Keras takes a batch from the
    stream for it at each `fit`, which a `TaskMix` counts as an epoch, and makes float64 of ids.
    """

    def state(**wanted: bool) -> tuple[_Held, ...]:
        names = [name for name in _JAX_STATE if wanted.get(f"{name}_variables")]
        return tuple(_Held(_of_state(model, name)) for name in names)

    def build(iterator: Any = None, data_batch: Any = None) -> None:
        if data_batch is not None and has_strategy(model):
            build_from_batch(model, data_batch)

    if keras.backend.backend() == "jax":
        model._get_jax_state = state
        model.jax_state_sync = lambda: None
    elif keras.backend.backend() == "tensorflow":
        model._maybe_symbolic_build = build


def jax_distribution() -> Any:
    """`keras.src`: what hands batches to JAX's devices; it has no public door."""
    from keras.src.backend.jax import distribution_lib

    return distribution_lib


def jax_step(model: keras.Model, kind: str) -> Callable[..., Any]:
    """A model's step on JAX, compiled, which reads its variables and writes them when it is whole.

    `_make_function`: makes a function that takes as many batches as `steps_per_execution` says.
    Keras's own ones donate the values that they are given, and a step that breaks off has lost
    them. `_value`: read and written in one go, without a line of Python between two variables,
    where an interrupt could come; `assign` would check each value.

    Args:
        model: a `keras.Model`.
        kind: "train", "test" or "predict".

    Returns:
        A function of what `settle_training` hands on and an iterator of batches.
    """
    import jax

    of_keras, lay = getattr(model, f"{kind}_step"), jax.lax.with_sharding_constraint

    def step(state: Any, data: Any) -> Any:
        outputs, new = of_keras(state, data)
        return outputs, ((state[0], new) if kind == "predict" else new)

    def changes(state: Any, data: Any) -> Any:
        """The frozen backbone is no output: it would be copied."""
        outputs, new = step(state, data)
        pairs = (zip(of, new_of, strict=False) for of, new_of in zip(state, new, strict=True))
        changed = [[None if a is b else b for a, b in pair] for pair in pairs]
        if keras.distribution.distribution() is not None:  # Each lies where the old one does.
            lists = zip(changed, (_of_state(model, n) for n in _JAX_STATES[kind]), strict=True)
            pairs = (zip(*of, strict=False) for of in lists)
            changed = [
                [v if v is None else lay(v, o._value.sharding) for v, o in of] for of in pairs
            ]
        # Metrics may make variables within their first step.
        return outputs, [of + n[len(of) :] for of, n in zip(changed, new, strict=True)]

    step.__name__ = changes.__name__ = f"{kind}_step"  # In JAX's logs and profiles.

    def on_values(state: Any, data: Any) -> Any:
        outputs, new = compiled(state, data)
        pairs = (itertools.zip_longest(of, n) for of, n in zip(state, new, strict=True))
        return outputs, tuple([a if b is None else b for a, b in pair] for pair in pairs)

    if model.run_eagerly or not model.jit_compile:
        on_values = step
    compiled = jax.jit(changes)
    function = model._make_function(on_values, concatenate_outputs=kind == "predict")

    def on_variables(state: tuple[_Held, ...], iterator: Any) -> tuple[Any, Any]:
        values = tuple([v._value for v in held.variables] for held in state)
        outputs, new = function(values, iterator)
        if [len(of) for of in new] != [len(of) for of in values]:
            state = tuple(_Held(_of_state(model, name)) for name in _JAX_STATES[kind])
        variables = [v for held in state for v in held.variables]
        flat = [value for of in new for value in of]
        collections.deque(map(setattr, variables, itertools.repeat("_value"), flat), maxlen=0)
        return outputs, state

    return on_variables


def _of_state(model: keras.Model, name: str) -> list[Any]:
    """Some of a model's variables, by their name in `_JAX_STATE`."""
    if name == "optimizer":
        return list(model.optimizer.variables)
    return list(getattr(model, f"{name}_variables"))


def set_first_epoch(model: keras.Model, epoch: int | None) -> None:
    """Lets a `fit` that has begun start at an epoch; `None` leaves it to its arguments.

    `_initial_epoch`: what `BackupAndRestore` sets too. `fit` reads it after `on_train_begin`.
    """
    model._initial_epoch = epoch


def variables_of_optimizer(optimizer: keras.Optimizer) -> list[Any]:
    """`_trainable_variables`: what an optimizer was built for; `variables` are its own."""
    return list(optimizer._trainable_variables)


@contextlib.contextmanager
def replaced_variables(layer: keras.layers.Layer, variables: Sequence[Any]) -> Iterator[None]:
    """Lets a built layer add variables in the place of these, which it forgets.

    `_untrack_variable` and `_tracker.unlock`: what Keras's own `quantize` and `enable_lora` use.
    """
    for variable in variables:
        layer._untrack_variable(variable)
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    yield
    if was_locked:
        layer._tracker.lock()


def calls_of_graph(model: keras.Model) -> list[Any]:
    """The calls in a functional model's graph, first to last.

    `_nodes_by_depth`: Keras has no public way to list them.
    """
    by_depth = sorted(model._nodes_by_depth.items(), reverse=True)
    return [node for _, at_depth in by_depth for node in at_depth]


@contextlib.contextmanager
def without_new_calls(model: keras.Model) -> Iterator[None]:
    """Lets nothing be left on a functional model's layers of what is built of them.

    `_inbound_nodes` and `_outbound_nodes`: a layer keeps all its calls in all graphs, and so all of
    these, for as long as it lives itself. A graph needs only its own list of them.
    """
    operations = [node.operation for node in calls_of_graph(model)]
    lists = [
        calls
        for operation in {id(op): op for op in (model, *operations)}.values()
        for calls in (operation._inbound_nodes, operation._outbound_nodes)
    ]
    lengths = [len(calls) for calls in lists]
    try:
        yield
    finally:
        for calls, length in zip(lists, lengths, strict=True):
            del calls[length:]


@contextlib.contextmanager
def keeping_history(tensors: Sequence[keras.KerasTensor]) -> Iterator[None]:
    """Leaves symbolic tensors as they are while a model is made that begins at them.

    `_keras_history`: Keras notes on a model's inputs that they belong to it; the functional model
    that they are part of could then not be saved, where it is no subclass.
    """
    histories = [(tensor, tensor._keras_history) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, history in histories:
            tensor._keras_history = history


def hub_cache_builder(task: Any) -> Callable[..., Tensors] | None:
    """`_build_cache`: by it a keras-hub task fills a cache for its `generate`, if it has one."""
    return getattr(task, "_build_cache", None)


def hub_cache_allocator(task: Any) -> Callable[..., Tensors] | None:
    """The method by which a keras-hub task allocates an empty cache, or `None`.

    `_initialize_cache`: what some tasks have in the place of a `_build_cache` that does both.
    """
    return getattr(task, "_initialize_cache", None)


def sublayers(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers of a model, those within layers too, in an order that a rebuilt model has as well.

    `_flatten_layers`: the public `layers` stops at the first level.
    """
    return list(model._flatten_layers(include_self=False, recursive=True))


def hub_converter(folder: str, config: Config) -> Any:
    """keras-hub's module that reads a kind of Hugging Face checkpoint, by `config["model_type"]`.

    `keras_hub.src`: its `from_preset` gives the weights no chance to be read as they are.
    """
    from keras_hub.src.utils.transformers.preset_loader import TransformersPresetLoader

    return TransformersPresetLoader(folder, config).converter


def hub_weights() -> type[Any]:
    """keras-hub's class that opens a checkpoint's weights, for its converters; as these."""
    from keras_hub.src.utils.transformers.safetensor_utils import SafetensorLoader

    return SafetensorLoader


def special_tokens(tokenizer: Any) -> dict[str, str]:
    """A keras-hub tokenizer's special tokens, by the name of the attribute that holds each.

    `_special_token_attrs`: which they are; `special_tokens` does not say what each one is for.
    """
    return {name: getattr(tokenizer, name) for name in vars(tokenizer).get(_SPECIAL, ())}


def set_special_tokens(tokenizer: Any, tokens: Mapping[str, str]) -> None:
    """Gives a tokenizer that has no vocabulary yet the special tokens that another had.

    `_add_special_token`: keras-hub's own constructors do no other.
    """
    setattr(tokenizer, _SPECIAL, [])
    for name, token in tokens.items():
        tokenizer._add_special_token(token, name)


def may_overwrite(filepath: Any) -> bool:
    """Whether a file may be replaced, by `save(overwrite=False)`'s own question."""
    return bool(ask_to_proceed_with_overwrite(filepath))


def is_saving_h5() -> bool:
    """Whether Keras is writing an `.h5` file: `use_legacy_config` is what it sets meanwhile."""
    return bool(get_global_attribute("use_legacy_config", None))


def forget_deferred(variables: Sequence[Any]) -> None:
    """Lets variables that were made for their shapes never have values.

    `uninitialized_variables`: those of `StatelessScope(initialize_variables=False)` stay in it, and
    the next model that is built anywhere makes their values, however large.
    """
    scope, of = get_stateless_scope(), {id(variable) for variable in variables}
    if scope is None or not scope.initialize_variables:
        waiting = get_global_attribute("uninitialized_variables") or []
        waiting[:] = [variable for variable in waiting if id(variable) not in of]


def let_torch_count_open_sizes() -> None:
    """`PYTHON_DTYPES_MAP`: where `ops.arange` looks for the dtype of a size, open ones too."""
    import torch

    PYTHON_DTYPES_MAP[torch.SymInt] = "int32"
