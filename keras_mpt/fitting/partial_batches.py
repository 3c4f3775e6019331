"""JAX's devices take a batch that they cannot divide, such as the last one of an epoch.

Keras raises for such a batch. Here each device takes all of it, and computes what one would.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt._keras import jax_distribution


def take_partial_batches() -> None:
    """Lets Keras hand such a batch to all devices, where there are several.

    It is set once, for all models: nothing else than that error is changed.
    """
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return
    library = jax_distribution()
    given = library.distribute_data_input

    def divided_or_whole(batch: Any, layout: Any, batch_dim_name: str) -> Any:
        # Of several processes each has its own rows: a whole batch is nowhere.
        if layout.is_fully_addressable and len(batch) % layout.mesh.shape[batch_dim_name]:
            layout = layout.update(spec=type(layout.spec)())
        return given(batch, layout, batch_dim_name)

    if given.__name__ != divided_or_whole.__name__:
        library.distribute_data_input = divided_or_whole
