"""An object seen with some of its attributes replaced, without changing it."""

from __future__ import annotations

import inspect
from typing import Any


class View:
    """`target` with other attributes: its methods see those too.

    keras-hub's tasks compute with `self.backbone.token_embedding`, which takes ids only. A view of
    the task whose backbone is a view with another `token_embedding` runs the same code on
    embeddings. Nothing is set on the task or the backbone, which would track a layer or a weight
    there, and no variable is copied.

    Args:
        target: any object.
        **instead: attributes to show in the place of the target's.
    """

    def __init__(self, target: Any, **instead: Any) -> None:
        self._target, self._instead = target, instead

    def __getattr__(self, name: str) -> Any:
        if name in self._instead:
            return self._instead[name]
        method = inspect.getattr_static(type(self._target), name, None)
        if inspect.isfunction(method):
            return method.__get__(self)
        return getattr(self._target, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Python looks `__call__` up on the class, not on the object."""
        return self._instead["__call__"](*args, **kwargs)


def shadow(layer: Any, **instead: Any) -> Any:
    """A layer of the same class, variables and layers, with other attributes.

    Where a `View` runs one method, this is called as the layer is: with Keras's casts and scopes.

    Args:
        layer: a built layer. It is left as it is.
        **instead: attributes in the place of its own.
    """
    # Past `__init__`, which would make weights, and `__setattr__`, which would track them.
    made = object.__new__(type(layer))
    made.__dict__.update(layer.__dict__)
    made.__dict__.update(instead)
    return made
