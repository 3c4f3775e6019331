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
