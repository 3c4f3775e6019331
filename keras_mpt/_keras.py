"""All that is taken from inside Keras and keras-hub, because it has no public name.

Each function stands for one private name or a few that belong together, and says why it is needed.
Nothing else in the package uses a name of Keras's that begins with an underscore; a test looks for
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras.src.backend import get_keras_mask as keras_mask
from keras.src.backend import in_symbolic_scope, set_keras_mask
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.utils.io_utils import ask_to_proceed_with_overwrite

from keras_mpt.types import Config, Tensor, Tensors

__all__ = [
    "build_from_batch",
    "calls_of_graph",
    "compile_arguments",
    "forget_compile_arguments",
    "hub_cache_allocator",
    "hub_cache_builder",
    "hub_converter",
    "hub_weights",
    "in_symbolic_scope",
    "is_saving_h5",
    "is_validation_of_fit",
    "keep_compile_arguments",
    "keeping_history",
    "keras_mask",
    "list_torch_parameters",
    "may_overwrite",
    "mean_values",
    "replaced_variables",
    "restore_jax_state",
    "set_first_epoch",
    "set_keras_mask",
    "sublayers",
    "variables_of_optimizer",
]

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


def forget_compile_arguments(model: keras.Model) -> None:
    """Lets a `compile` with `loss=None` or `metrics=None` mean it.

    `_compile_loss` and `_compile_metrics`: Keras keeps what an earlier `compile` was given where a
    later one gives `None`.
    """
    model.loss = model._compile_loss = model._compile_metrics = None


def keep_compile_arguments(model: keras.Model, given: Config) -> None:
    """Lets a model remember what `compile` was given, not what that was resolved to for Keras.

    `_compile_config`, as above.
    """
    model._compile_config.config.update(given)


def build_from_batch(model: keras.Model, batch: tuple[Any, ...]) -> None:
    """Builds a model's loss and metrics by a batch.

    `_symbolic_build`: `fit` would take the batch from the stream, and run an epoch's hooks for it.
    """
    model._symbolic_build(data_batch=batch)


def is_validation_of_fit(kwargs: Config) -> bool:
    """Whether `evaluate` is called by `fit`, on the validation data that `fit` has prepared.

    `_use_cached_eval_dataset`: what `fit` gives to `evaluate` to say so.
    """
    return bool(kwargs.get("_use_cached_eval_dataset"))


def list_torch_parameters(model: keras.Model) -> None:
    """Makes PyTorch's list of a model's variables, which `state_dict` and its like read, anew.

    `_torch_params`: Keras makes that list when somebody asks for it, and but once, while variables
    are replaced as tasks come and go.
    """
    if keras.backend.backend() != "torch":
        return
    for layer in (model, *model.layers):
        if hasattr(layer, "_torch_params"):
            del layer._torch_params
            layer.torch_params  # noqa: B018 (asking makes it)
    model.torch_params  # noqa: B018


# What a step's state holds on JAX, by its length: to predict, to test and to train.
_JAX_STATES = {
    2: ("trainable_variables", "non_trainable_variables"),
    3: ("trainable_variables", "non_trainable_variables", "metrics_variables"),
    4: (
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    ),
}


def restore_jax_state(model: keras.Model, state: Sequence[Any]) -> None:
    """Gives a model on JAX the values back that a step was given.

    `_jax_state` and `_jax_state_synced`: Keras takes the values out of the model while it trains.
    """
    model._jax_state = dict(zip(_JAX_STATES[len(state)], state, strict=True))
    model._jax_state_synced = False
    model.jax_state_sync()


def set_first_epoch(model: keras.Model, epoch: int | None) -> None:
    """Lets a `fit` that has begun start at an epoch; `None` leaves it to its arguments.

    `_initial_epoch`: what `BackupAndRestore` sets too. `fit` reads it after `on_train_begin`.
    """
    model._initial_epoch = epoch


def variables_of_optimizer(optimizer: keras.Optimizer) -> list[Any]:
    """The variables that an optimizer was built for.

    `_trainable_variables`: the public `variables` are the optimizer's own.
    """
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
    """The method by which a keras-hub task fills a cache with a text, or `None`.

    `_build_cache`: keras-hub's `generate` calls it; nothing public does.
    """
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
    """keras-hub's class that opens a checkpoint's weights, for its converters.

    `keras_hub.src`: as `hub_converter`.
    """
    from keras_hub.src.utils.transformers.safetensor_utils import SafetensorLoader

    return SafetensorLoader


def may_overwrite(filepath: Any) -> bool:
    """Asks, as Keras does, whether a file may be replaced.

    `ask_to_proceed_with_overwrite`: the question that `save(overwrite=False)` puts.
    """
    return bool(ask_to_proceed_with_overwrite(filepath))


def is_saving_h5() -> bool:
    """Whether Keras is writing a model to an `.h5` file.

    `use_legacy_config`: what it sets meanwhile; a model can tell by nothing else.
    """
    return bool(get_global_attribute("use_legacy_config", None))
