"""Blocks of a backbone that attend to a shared prompt and to each row's own tokens apart.

A block gets a cache of the row's own tokens, whose first slot stands for the whole prompt: so what
it makes of masks and places is right as far as it does not count the prompt's positions. Its
attention then reads the prompt from where all rows have it. Whether that is what the block computes
is asked of the block itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_mpt._keras import ATTENTION
from keras_mpt.splicing.cache_layout import place_names
from keras_mpt.splicing.joined_attention import Prefix, as_prefix, attend_after
from keras_mpt.splicing.row_blocks import RowBlocks, row_blocks
from keras_mpt.splicing.view import shadow
from keras_mpt.types import Tensor, Tensors

_PLAIN = (bool, int, float, str, type(None))


class SplitLayer(NamedTuple):
    """How a block of a backbone attends.

    Attributes:
        layer: the block.
        name: string. The block's attribute that is its attention.
        turning: list of strings. The attention's attributes that turn queries and keys by place.
        scale: float. What scores are multiplied by.
        drops_out: bool. Whether the attention drops numbers at random while training.
    """

    layer: keras.layers.Layer
    name: str
    turning: list[str]
    scale: float = 1.0
    drops_out: bool = False

    @property
    def attention(self) -> keras.layers.Layer:
        """The block's attention."""
        found: keras.layers.Layer = getattr(self.layer, self.name)
        return found

    def after(self, prefix: Prefix, blocks: RowBlocks, length: int) -> keras.layers.Layer:
        """The block, as one that is called with a cache of the row's own tokens.

        Args:
            prefix: what the block keeps of the prompts.
            blocks: which rows have which of them.
            length: int. L.
        """

        def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            own = None if mask is None else mask[..., 1:]
            given = query, key[:, 1:], value[:, 1:], own
            return attend_after(prefix, blocks, *given, scale=self.scale)

        return self.by(attend, length - 1)

    def by(self, attend: Callable[..., Tensor], shift: int = 0) -> keras.layers.Layer:
        """The block with another function of queries, keys, values and mask as its attention.

        Args:
            attend: the function.
            shift: int. How much farther tokens stand than the block is told. Defaults to 0.
        """
        attention = self.attention
        real = getattr(attention, ATTENTION)
        names = list(inspect.signature(real).parameters)[:4]

        def compute(*args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            made = attend(*(given.get(name) for name in names))
            # keras.layers.MultiHeadAttention gives the scores as well, or `None`.
            return (made, None) if isinstance(attention, keras.layers.MultiHeadAttention) else made

        def turned(real: keras.layers.Layer) -> Callable[..., Tensor]:
            def turn(x: Tensor, start_index: Any = 0, **kwargs: Any) -> Tensor:
                return real(x, start_index=start_index + shift, **kwargs)

            return turn

        turns = {name: turned(getattr(attention, name)) for name in self.turning}
        return shadow(self.layer, **{self.name: shadow(attention, **{ATTENTION: compute}, **turns)})


def look_back(layers: list[SplitLayer], positions: int | None) -> bool:
    """Whether all blocks look back over so many positions; `None` for an unknown number.

    A block that looks back less far would have to count the prompt's positions, which it is not
    told of.
    """
    limits = [
        value
        for split in layers
        for of in (split.layer, split.attention)
        for name, value in vars(of).items()
        if "window" in name and isinstance(value, int) and not isinstance(value, bool) and value > 0
    ]
    return not limits or (positions is not None and positions <= min(limits))


def split_layers(
    layers: list[keras.layers.Layer], parts: list[Tensors], width: int
) -> list[SplitLayer] | None:
    """The blocks as `SplitLayer`s, or `None` where one of them computes something else.

    Args:
        layers: the backbone's blocks.
        parts: what each of them keeps of 2 rows of 8 tokens.
        width: int. d, of the states between them.
    """
    known: dict[Any, float | None] = {}
    found = []
    for layer, part in zip(layers, parts, strict=True):
        split = _taken_apart(layer)
        if split is None:
            return None
        kind = (type(layer), *(_settings(of, layer.name) for of in (layer, split.attention)))
        if kind not in known:
            known[kind] = _scale(split, part, width)
        scale = known[kind]
        if scale is None:
            return None
        found.append(split._replace(scale=scale))
    return found


def _taken_apart(layer: keras.layers.Layer) -> SplitLayer | None:
    """A block's attention, by what it takes."""
    found = [
        name
        for name, value in _own_layers(layer).items()
        if hasattr(value, ATTENTION)
        and {"cache", "cache_update_index"} <= set(inspect.signature(value.call).parameters)
    ]
    if len(found) != 1 or not place_names(layer):
        return None
    parts = _own_layers(getattr(layer, found[0]))
    turning = [
        name
        for name, part in parts.items()
        if "start_index" in inspect.signature(part.call).parameters
    ]
    drops = any(isinstance(p, keras.layers.Dropout) and p.rate > 0 for p in parts.values())
    return SplitLayer(layer, found[0], turning, drops_out=drops)


def _own_layers(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """A layer's attributes that are layers; PyTorch's modules keep them elsewhere than others."""
    names = set(dir(layer)) - set(dir(type(layer)))
    values = {name: getattr(layer, name, None) for name in sorted(names)}
    return {n: v for n, v in values.items() if isinstance(v, keras.layers.Layer)}


def _settings(layer: keras.layers.Layer, block: str) -> tuple[Any, ...]:
    """What tells two layers of a class apart, but for where each is: that has the block's name."""
    values = {n: repr(v) for n, v in vars(layer).items() if isinstance(v, _PLAIN)}
    return tuple(sorted((n, v) for n, v in values.items() if block not in v))


def _scale(split: SplitLayer, cache: Tensors, width: int) -> float | None:
    """What a block's attention multiplies scores by, or `None` where it is no plain attention.

    Args:
        split: the block.
        cache: one of 2 rows and 8 slots.
        width: int. d.
    """
    rng = np.random.default_rng(0)
    dtype = keras.tree.flatten(cache)[0].dtype

    def tensor(*shape: int) -> Tensor:
        return ops.cast(ops.convert_to_tensor(rng.normal(size=shape).astype("float32")), dtype)

    cache = keras.tree.map_structure(lambda t: tensor(*t.shape), cache)
    x, scales = tensor(2, 2, width), list[float]()
    found = _at_once(lambda: _differences(split, x, cache, scales), split.layer.variables)
    # Half precision tells no more.
    most = 1e-5 if keras.backend.standardize_dtype(dtype) == "float32" else 0.02
    differences = ops.convert_to_numpy(found)
    right = [scale for scale, d in zip(scales, differences, strict=True) if d <= most]
    return right[0] if right else None


def _differences(split: SplitLayer, x: Tensor, cache: Tensors, scales: list[float]) -> Tensor:
    """How far a block and its attention are from plain attention, by what it may be scaled by.

    Asked with numbers of which another way would make others: large scores, which a cap moves;
    small ones, beside which a sink weighs; heads and rows that differ.
    """
    seen, real = [], _plain_call(split)

    def spy(*args: Any) -> Tensor:
        seen.append(args)
        return real(*args)

    wanted = _first(split.by(spy)(x, **_cache_names(split.layer, cache, 5)))
    query, key, value, mask = seen[0]
    heads, dim = query.shape[2:]
    if len(key.shape) != 4 or heads % key.shape[2] or mask is None:
        raise ValueError("an attention of another layout")
    # Keys that differ at random, and by little: then all scores are about as large.
    tests = (query, key), (ops.ones_like(query), 1 - 0.1 * key / ops.max(ops.abs(key)))

    def far(one: Tensor, other: Tensor) -> Tensor:
        one, other = ops.cast(one, "float32"), ops.cast(other, "float32")
        return ops.max(ops.abs(one - other)) / ops.maximum(1.0, ops.max(ops.abs(other)))

    scales += dict.fromkeys((dim**-0.5, (x.shape[-1] // heads) ** -0.5, 1.0))
    found = []
    for scale in scales:
        own = split._replace(scale=scale)
        differences = [far(_whole(own, x, cache, 3), wanted)]
        for q, k in tests:
            for size in (0.3, 30 / (dim * scale)):  # Scores of about 0, and of about 30.
                given = q * size, k, value, mask
                differences.append(far(_apart(own, *given, 3), real(*given)))
        found.append(ops.max(ops.stack(differences)))
    return ops.stack(found)


def _at_once(function: Callable[[], Tensor], variables: list[keras.Variable]) -> Tensor:
    """What a function of variables gives; on JAX, which would compile each of its operations by
    itself, and take seconds, as one program.
    """
    if keras.backend.backend() != "jax":
        return function()
    import jax

    def stateless(values: list[Tensor]) -> Tensor:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function()

    return jax.jit(stateless)([v.value for v in variables])


def _apart(
    split: SplitLayer, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, length: int
) -> Tensor:
    """Attention of two rows with prompts of their own, which are their first keys and values."""
    blocks = row_blocks(ops.arange(2), 2)
    prefix = as_prefix((key[:, :length], value[:, :length]), blocks)
    own = key[:, length:], value[:, length:], mask[..., length:]
    return attend_after(prefix, blocks, query, *own, scale=split.scale)


def _whole(split: SplitLayer, x: Tensor, cache: Tensors, length: int) -> Tensor:
    """What a block gives after two rows' prompts, which are the first of the cache."""
    blocks = row_blocks(ops.arange(2), 2)
    tensors = keras.tree.flatten(cache)
    pair = tensors if len(tensors) == 2 else ops.unstack(tensors[0], axis=1)
    prefix = as_prefix([t[:, :length] for t in pair], blocks)
    own = keras.tree.map_structure(lambda t: t[..., length - 1 :, :, :], cache)
    layer = split.after(prefix, blocks, length)
    return _first(layer(x, **_cache_names(split.layer, own, 5 - (length - 1))))


def _plain_call(split: SplitLayer) -> Callable[..., Tensor]:
    """A block's own attention as a function of queries, keys, values and mask."""
    real = getattr(split.attention, ATTENTION)

    def call(*args: Tensor) -> Tensor:
        return _first(real(*args))

    return call


def _first(made: Any) -> Tensor:
    return made[0] if isinstance(made, (tuple, list)) else made


def _cache_names(layer: keras.layers.Layer, cache: Tensors, index: int) -> dict[str, Any]:
    """A cache and a place by the names that a block has for them."""
    place = place_names(layer)[0]
    return {place.removesuffix("_update_index"): cache, place: index}
