"""Methods of a model that run one at a time, whichever thread calls them.

Keras's `fit`, `evaluate` and `predict` keep what they work with on the model: its metrics, its
state, its compiled functions. Two threads in them at once would mix it up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from keras_mpt.splicing.locks import lock_of

Method = TypeVar("Method", bound=Callable[..., Any])


def alone(method: Method) -> Method:
    """A model's method, called by one thread at a time for all models on its backbone.

    It may call itself and its like: `evaluate` within `fit`, `predict` in a callback.

    Args:
        method: method of a `Fitting`.

    Returns:
        A method with its name, its arguments and its docstring.
    """

    @functools.wraps(method)
    def called(model: Any, *args: Any, **kwargs: Any) -> Any:
        with lock_of(model.model_inputs.splice.backbone):
            return method(model, *args, **kwargs)

    return cast(Method, called)
