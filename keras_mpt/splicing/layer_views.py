"""A backbone's blocks as a task calls them with a cache, seen with other arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mpt.splicing.cache_layout import Cache, mask_name, place_names
from keras_mpt.splicing.frozen_products import with_frozen_products
from keras_mpt.splicing.view import View
from keras_mpt.types import Tensor, Tensors

OfPart = Callable[[int, Tensors], tuple[keras.layers.Layer, Tensors]]


def layer_views(
    layers: list[keras.layers.Layer],
    length_axis: int,
    cache: Cache | None = None,
    of_part: OfPart | None = None,
    place: int | None = None,
    keep: list[Tensors] | None = None,
    states: list[Tensor] | None = None,
    mask: Tensor | None = None,
    poison: Tensor | None = None,
    remat: float = 0.0,
    not_counted: int = 0,
) -> list[View]:
    """The backbone's layers, seen with other arguments.

    Args:
        layers: the layers.
        length_axis: int. The axis of positions in what a layer keeps, counted from the last.
        cache: each layer's part of it; `None` leaves it what the task gives. Defaults to `None`.
        of_part: function of a layer's number and part that gives what to call with which cache.
            Defaults to `None`.
        place: int. Where the new tokens' keys and values come, where that is known. Keras on
            PyTorch writes at a tensor's place entry by entry. Defaults to `None`.
        keep: list that gets each layer's part, with the new tokens. Defaults to `None`.
        states: list that gets what each layer gives. Defaults to `None`.
        mask: int tensor (B, L + S), the padding mask that the layers get. Defaults to `None`.
        poison: float tensor (B,), added to what enters the first layer. Defaults to `None`.
        remat: float. The share of the layers that run once more on the way back. The last ones
            keep what is within them, which is gone before the first ones run again. Defaults to 0.
        not_counted: int. How many positions the layers' caches leave out. Defaults to 0.
    """
    again = round(remat * len(layers))

    def nothing_of(tensor: Tensor) -> Tensor:
        """A cache of length 0: tasks stack what their layers give, which costs a copy of it."""
        return tensor[(..., slice(0, 0), *[slice(None)] * (-length_axis - 1))]

    def seen(i: int, layer: keras.layers.Layer) -> View:
        def call(x: Tensor, **given: Any) -> tuple[Tensor, Tensors]:
            if i == 0 and poison is not None:
                x = x + ops.cast(poison, x.dtype)[:, None, None]
            names = [name for name in place_names(layer) if name in given]
            given |= {} if place is None else dict.fromkeys(names, place)
            given |= {name: given[name] - not_counted for name in names if not_counted}
            if mask is not None:
                given[str(mask_name(layer))] = mask
            part = () if cache is None else cache[i]

            def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensors]:
                # All that has a gradient is handed on, where TensorFlow finds it.
                own, called = {}, layer
                if cache is not None and of_part is not None:
                    called, found = of_part(i, keras.tree.pack_sequence_as(part, tensors))
                    own = {name: found for name in given if name.endswith("cache")}
                x, filled = called(x, **{**given, **own})
                if keep is not None:
                    keep.append(filled)
                return x, keras.tree.map_structure(nothing_of, filled)

            if i < again:
                run = keras.remat(with_frozen_products(run, is_recomputed=True))
            x, nothing = run(x, *keras.tree.flatten(part))
            if states is not None:
                states.append(x)
            return x, nothing

        return View(layer, __call__=call)

    return [seen(i, layer) for i, layer in enumerate(layers)]
