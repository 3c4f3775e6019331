"""What no prompt tuning can be faster than: the frozen backbone alone, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.steps import wait
from keras_mpt.splicing.cut import cut
from keras_mpt.splicing.frozen_products import frozen_products


class Bare(keras.Model):
    """A backbone after a shift of its token embeddings, which makes the gradient go back there.

    No prompt, no head; one number (d,) is trained, by plain SGD.

    Args:
        backbone: a keras-hub backbone, frozen.
        to_logits: function from the list of the backbone's outputs to logits, or `None` for its
            last hidden states. Defaults to `None`.
    """

    def __init__(self, backbone: Any, to_logits: Any = None) -> None:
        super().__init__()
        self.to_logits = to_logits
        self.graph = cut(backbone)
        self.graph.rest.trainable = False
        width = backbone.token_embedding.output_dim
        self.shift = self.add_weight((width,), "zeros", name="shift")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The backbone's last hidden states, or their logits."""
        embedded = [t.embedding(inputs[t.name]) + self.shift for t in self.graph.token_inputs]
        plain = [inputs[name] for name in self.graph.plain_names]
        outputs = self.graph.rest([*embedded, *plain], training=training)
        flat = keras.tree.flatten(outputs)
        if self.to_logits is not None:
            return self.to_logits(flat, training=training)
        # BERT gives its pooled state too; T5's decoder comes first.
        return next(o for o in flat if len(o.shape) == 3)


def bare_step(backbone: Any, rows: int, tokens: int, to_logits: Any = None) -> Callable[[], None]:
    """Forward and backward to the embeddings on (rows, tokens), as a function.

    With `to_logits` from cross-entropy on logits, else from the mean square of the hidden states.
    """
    model = Bare(backbone, to_logits)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = _mean_square if to_logits is None else crossentropy
    model.compile(keras.optimizers.SGD(1e-6), loss=loss)
    rng = np.random.default_rng(0)
    inputs = {}
    for tensor in backbone.inputs:
        name, length = tensor.name, tokens
        if name.startswith("decoder"):
            length = tokens // 2
        if name.endswith("token_ids"):
            inputs[name] = rng.integers(5, 100, (rows, length)).astype("int32")
        else:
            value = 0 if name == "segment_ids" else 1
            inputs[name] = np.full((rows, length), value, "int32")
    targets = np.zeros((rows, 1), "float32")
    if to_logits is not None:
        last = [name for name in inputs if name.endswith("token_ids")][-1]
        targets = inputs[last]

    def step() -> None:
        with frozen_products():  # The same arithmetic, by the library that our models use.
            model.train_on_batch(inputs, targets)
        wait(model)

    return step


def _mean_square(targets: Any, states: Any) -> Any:
    return ops.mean(ops.square(states))
