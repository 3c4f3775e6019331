"""Methods of a model that run one at a time, whichever thread calls them.

Keras's `fit`, `evaluate` and `predict` keep what they work with on the model: its metrics, its
state, its compiled functions. Two threads in them at once would mix it up.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from keras_mpt.fitting.recompile import forget_if_changed
from keras_mpt.splicing.locks import lock_of

Method = TypeVar("Method", bound=Callable[..., Any])

# The backbones that are in use around what runs now.
_in_use: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar(
    "keras_mpt_in_use", default=()
)


def alone(method: Method) -> Method:
    """A model's method, called by one thread at a time for all models on its backbone.

    It may call itself and its like: `evaluate` within `fit`, `predict` in a callback. What was
    compiled before is forgotten first, where the backbone is no longer what it was compiled for.

    Args:
        method: method of a `Fitting`.

    Returns:
        A method with its name, its arguments and its docstring.
    """

    @functools.wraps(method)
    def called(model: Any, *args: Any, **kwargs: Any) -> Any:
        backbone = model.model_inputs.splice.backbone
        with lock_of(backbone):
            outer = _in_use.get()
            if id(backbone) in outer:
                return method(model, *args, **kwargs)
            forget_if_changed(model)
            token = _in_use.set((*outer, id(backbone)))
            try:
                return method(model, *args, **kwargs)
            finally:
                _in_use.reset(token)

    return cast(Method, called)
