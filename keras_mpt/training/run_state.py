"""What a run of `fit` is at one step: its variables, its random generators, and which run it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mpt.adapters.backbone_identity import digest
from keras_mpt.arrays import to_numpy
from keras_mpt.data.task_mix import TaskMix
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.training.state_file import FILE_NAME, read_state, write_state

# A state's file has a module of its own, and is found here too.
__all__ = ["FILE_NAME", "read_state", "write_state"]


def moving_variables(model: keras.Model) -> dict[str, list[Any]]:
    """A model's variables that training changes, by kind; the frozen weights are left out.

    Args:
        model: a `keras.Model`, compiled, whose optimizer is built.

    Returns:
        Lists of variables: `"trained"`, `"optimizer"`, `"others"` (seeds, and running statistics of
        layers that are not frozen) and `"metrics"`.
    """
    frozen = {id(v) for v in frozen_weights(model)}
    return {
        "trained": list(model.trainable_variables),
        "optimizer": [] if model.optimizer is None else list(model.optimizer.variables),
        "others": [v for v in model.non_trainable_variables if id(v) not in frozen],
        "metrics": list(model.metrics_variables),
    }


def frozen_weights(layer: keras.layers.Layer) -> list[Any]:
    """The weights of those layers of a model that are not trainable, without their seeds."""
    if not layer.trainable:
        return list(layer.weights)
    return [v for sublayer in getattr(layer, "layers", ()) for v in frozen_weights(sublayer)]


def values_of(variables: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """The variables' values by kind and number: paths are not unique, nor the same in each run."""
    return {f"{kind}/{i}": to_numpy(v) for kind, vs in variables.items() for i, v in enumerate(vs)}


def check_values(
    values: dict[str, np.ndarray], variables: dict[str, list[Any]], source: str
) -> None:
    """Refuses values that are not, one for one, those of the variables, or are no numbers.

    Args:
        values: arrays by kind and number.
        variables: lists of variables by kind; other kinds in `values` do not count.
        source: string. Where the values come from, for messages.
    """
    wanted = {f"{k}/{i}": tuple(v.shape) for k, vs in variables.items() for i, v in enumerate(vs)}
    found = {n: value.shape for n, value in values.items() if n.partition("/")[0] in variables}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"`directory` should hold a state of this run, with `{name}` of shape "
                f"{wanted.get(name)}. Received: {source!r}, in which it is of shape "
                f"{found.get(name)}"
            )
    for kind, listed in variables.items():
        for i, variable in enumerate(listed):
            _check_numbers(f"{kind}/{i}", values[f"{kind}/{i}"], variable, source)


def _check_numbers(name: str, value: np.ndarray, variable: Any, source: str) -> None:
    # A backend may hold a dtype that it lacks as another.
    if value.dtype not in (variable.dtype, to_numpy(variable).dtype):
        raise ValueError(
            f"`directory` should hold a state of this run, with `{name}` of dtype "
            f"{variable.dtype}. Received: {source!r}, in which it is of dtype {value.dtype}"
        )
    # A metric may well start at infinity, as the least value so far.
    is_wrong = np.isnan if name.startswith("metrics/") else lambda x: ~np.isfinite(x)
    if value.dtype.kind == "f" and is_wrong(value).any():
        raise ValueError(
            f"`directory` should hold a state of finite numbers. Received: {source!r}, in which "
            f"`{name}` has {int(is_wrong(value).sum())} values that are not: the run had gone "
            "astray. Without that file it starts anew"
        )


def assign(values: dict[str, np.ndarray], variables: dict[str, list[Any]]) -> None:
    """Gives the variables their values."""
    for kind, listed in variables.items():
        for i, variable in enumerate(listed):
            variable.assign(values[f"{kind}/{i}"])


def generator_states() -> dict[str, np.ndarray]:
    """PyTorch's own random generators: there, Keras draws an unseeded dropout from them.

    On the other backends every draw comes from a seed that is one of the model's variables.
    """
    if keras.backend.backend() != "torch":
        return {}
    import torch

    states = {"generator/cpu": torch.get_rng_state()}
    for i, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()):
        states[f"generator/cuda:{i}"] = state
    return {name: state.numpy() for name, state in states.items()}


def set_generator_states(states: dict[str, np.ndarray]) -> None:
    """Puts back what `generator_states` gave, for the devices that are there."""
    if keras.backend.backend() != "torch":
        return
    import torch

    for name, state in states.items():
        device = name.partition("/")[2]
        if device == "cpu":
            torch.set_rng_state(torch.tensor(state))
        elif int(device.partition(":")[2]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(torch.tensor(state), device)


def check_generator_states(values: dict[str, np.ndarray], source: str) -> None:
    """Refuses what `set_generator_states` could not put back.

    Args:
        values: arrays by name; those of generators count.
        source: string. Where they come from, for messages.
    """
    if keras.backend.backend() != "torch":
        return
    import torch

    for name, value in values.items():
        kind, _, device = name.partition("/")
        if kind != "generator":
            continue
        try:
            if re.fullmatch(r"cpu|cuda:\d{1,3}", device) is None or value.dtype != "uint8":
                raise ValueError(f"{value.dtype} for {device!r}")
            if device == "cpu":
                torch.Generator().set_state(torch.tensor(value))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"`directory` should hold a state of this run, with `{name}` as PyTorch's "
                f"generators have it. Received: {source!r}, in which it is another: {error}"
            ) from None


def run_fingerprint(model: keras.Model, mix: TaskMix) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON: all but the values that training changes.

    Args:
        model: a compiled `keras.Model`.
        mix: a `keras_mpt.TaskMix`.

    Returns:
        A nested dict.
    """
    found: dict[str, Any] = {"backend": keras.backend.backend(), "model": type(model).__name__}
    settings = model.run_settings if isinstance(model, Fitting) else {}
    for name, value in settings.items():
        found[name] = value if isinstance(value, dict) else _settings(value)
    trained = [f"{v.name} {tuple(v.shape)} {v.dtype}" for v in model.trainable_variables]
    return _as_json(
        {
            **found,
            "frozen_weights": digest(frozen_weights(model)),
            "trained": trained,
            "compile": _compile_settings(model),
            "mix": mix.fingerprint(),
        }
    )


def check_same_run(found: dict[str, Any], wanted: dict[str, Any], source: str) -> None:
    """Refuses the state of another run, by the names of what differs.

    Args:
        found: the fingerprint in the state.
        wanted: this run's.
        source: string. Where the state is, for messages.
    """
    there, here = dict(_leaves(found)), dict(_leaves(wanted))
    names = [n for n in {**here, **there} if there.get(n, _NONE) != here.get(n, _NONE)]
    if names:
        shown = [f"{n} is {_shown(there, n)} there, {_shown(here, n)} here" for n in names[:5]]
        more = f"; and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(
            f"`directory` should hold a state of this run, or none. Received: {source!r} of "
            f"another run: {'; '.join(shown)}{more}"
        )


_NONE = object()


def _compile_settings(model: keras.Model) -> Any:
    """What `compile` was given, but for what has no say in the numbers."""
    try:
        settings = dict(model.get_compile_config())
    except Exception:  # A loss or metric of the user's own that cannot be serialized.
        settings = {"optimizer": keras.saving.serialize_keras_object(model.optimizer)}
    for name in ("run_eagerly", "jit_compile", "sampler", "task_logs"):
        settings.pop(name, None)
    return _without_names(settings)


def _settings(item: Any) -> Any:
    """A backbone's or preprocessor's class and settings; of a graph's layers the weights tell."""
    if item is None:
        return None
    config = item.get_config()
    graph = ("layers", "input_layers", "output_layers", "config_preprocessor")
    kept = {name: value for name, value in config.items() if name not in graph}
    return {"class": type(item).__name__, **_without_names(kept)}


def _without_names(value: Any) -> Any:
    """The settings without the names of objects, which Keras numbers, and their modules."""
    if isinstance(value, dict):
        dropped = ("name", "module", "registered_name", "build_config")
        return {k: _without_names(v) for k, v in value.items() if k not in dropped}
    return [_without_names(v) for v in value] if isinstance(value, (list, tuple)) else value


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value of a nest, by its path."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _shown(values: dict[str, Any], name: str) -> str:
    text = repr(values[name]) if name in values else "nothing"
    return text if len(text) <= 60 else f"{text[:57]}…"
