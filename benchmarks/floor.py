"""What no prompt tuning can be faster than: the frozen backbone alone, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.steps import wait
from keras_mpt.splicing.cut import cut


class Bare(keras.Model):
    """A backbone behind a shift of its token embeddings, which makes the gradient go back there.

    No prompt, no head; one number (d,) is trained, by plain SGD.

    Args:
        backbone: a keras-hub backbone, frozen.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.graph = cut(backbone)
        self.graph.rest.trainable = False
        width = backbone.token_embedding.output_dim
        self.shift = self.add_weight((width,), "zeros", name="shift")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The backbone's last hidden states."""
        embedded = [t.embedding(inputs[t.name]) + self.shift for t in self.graph.token_inputs]
        plain = [inputs[name] for name in self.graph.plain_names]
        outputs = self.graph.rest([*embedded, *plain], training=training)
        flat = keras.tree.flatten(outputs)
        # BERT gives its pooled state too; T5's decoder comes first.
        return next(o for o in flat if len(o.shape) == 3)


def bare_step(backbone: Any, rows: int, tokens: int) -> Callable[[], None]:
    """Forward and backward to the embeddings on (rows, tokens), as a function."""
    model = Bare(backbone)
    model.compile(keras.optimizers.SGD(1e-6), loss=_mean_square)
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

    def step() -> None:
        model.train_on_batch(inputs, targets)
        wait(model)

    return step


def _mean_square(targets: Any, states: Any) -> Any:
    return ops.mean(ops.square(states))
