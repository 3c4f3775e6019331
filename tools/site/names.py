"""What a user may call: public names, and of classes what is theirs and not Keras's."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras

import keras_mpt

MODULES = (keras_mpt, keras_mpt.models, keras_mpt.analysis, keras_mpt.recipes)
BASES = (
    keras.Model,
    keras.callbacks.Callback,
    keras.distribution.ModelParallel,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.utils.PyDataset,
)
KERAS = frozenset(name for base in BASES for name in dir(base))


@functools.cache
def public_names() -> dict[str, Any]:
    """All public names with their modules, and under those of classes what a user calls of them."""
    found = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in MODULES
        for name in module.__all__
    }
    classes = {item: name for name, item in found.items() if inspect.isclass(item)}
    for cls, full in classes.items():
        above = [base for base in cls.__mro__[1:] if base in classes]
        for name, item in _members(cls).items():
            # A method stands where it is made, if that is public, and not in each class below.
            if not any(item is _members(base).get(name) for base in above):
                found[f"{full}.{name}"] = item
    return found


@functools.cache
def _members(cls: type) -> dict[str, Any]:
    """Methods and properties of the class and of those that it stands on, in our package."""
    found: dict[str, Any] = {}
    for of in cls.__mro__:
        if of.__module__.startswith("keras_mpt"):
            for name, item in vars(of).items():
                item = getattr(item, "__func__", item)
                if not name.startswith("_") and _is_called(name, item):
                    found.setdefault(name, item)
    return found


def _is_called(name: str, item: Any) -> bool:
    """Whether a user calls it: not what Keras calls, and has described, itself."""
    if not isinstance(item, property) and not inspect.isfunction(item):
        return False
    return name not in KERAS or "Args:" in (item.__doc__ or "")


def is_described(item: Any) -> bool:
    """Whether it has a docstring of its own; constants cannot have one."""
    return isinstance(item, str) or bool((getattr(item, "__doc__", None) or "").strip())
