"""What an exported model takes: int32 inputs by name, with dimensions that may stay open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_mpt.checks import check_size, received
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.splicing.splice import TEXT_LENGTHS

# Names of dimensions, as runtimes show them.
BATCH, SEQUENCE, PLACES = "batch", "sequence", "places"

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of an exported model, each int32.

    Attributes:
        shapes: each input's shape by its name, `None` for a dimension that stays open.
        dimensions: the names of each input's dimensions; those of one name are equal.
        most: for a dimension's name, how long it may be, where that is limited.
    """

    shapes: Mapping[str, Shape]
    dimensions: Mapping[str, tuple[str, ...]]
    most: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """The names of the inputs, in the model's order."""
        return list(self.shapes)

    @property
    def open(self) -> list[str]:
        """The inputs with a dimension that stays open."""
        return [name for name, shape in self.shapes.items() if None in shape]

    def described(self) -> str:
        """The inputs and their shapes, in one line."""
        return ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())


def signature_of(
    inputs: ModelInputs, given: Any, batch_size: int | None, sequence_length: int | None
) -> Signature:
    """The signature of a model.

    Args:
        inputs: the model's inputs.
        given: what `input_signature` was given, or `None`.
        batch_size: int, or `None` for any number of rows.
        sequence_length: int, or `None` for any number of tokens.

    Raises:
        ValueError: sizes that are none or too long, or an `input_signature` of another form.
    """
    dimensions = _dimensions(inputs)
    most = _longest(inputs)
    sizes: dict[str, int | None] = {}
    if batch_size is not None:
        sizes[BATCH] = check_size("batch_size", batch_size)
    if sequence_length is not None:
        length = check_size("sequence_length", sequence_length)
        sizes |= {name: length for name in _lengths(dimensions)}
    if given is not None:
        if sizes:
            raise ValueError(
                "`input_signature` should be left out where `batch_size` or `sequence_length` is "
                f"given. Received: batch_size={batch_size}, sequence_length={sequence_length} and "
                f"input_signature={received(given)}"
            )
        sizes = _sizes_of(given, dimensions)
    argument = "input_signature" if given is not None else "sequence_length"
    for name, limit in most.items():
        if (sizes.get(name) or 0) > limit:
            raise ValueError(
                f"`{argument}` should have at most {limit} tokens: the backbone has "
                f"{inputs.splice.max_sequence_length} positions and the prompt takes the others. "
                f"Received: {sizes[name]} tokens"
            )
    shapes = {name: tuple(sizes.get(d) for d in dims) for name, dims in dimensions.items()}
    return Signature(shapes, dimensions, most)


def _dimensions(inputs: ModelInputs) -> dict[str, tuple[str, ...]]:
    """The names of each input's dimensions."""
    found: dict[str, tuple[str, ...]] = {
        "task_ids": (BATCH,), TEXT_LENGTHS: (BATCH,), MASK_POSITIONS: (BATCH, PLACES)
    }  # fmt: skip
    several = len(inputs.splice.token_inputs) > 1
    for token_input in inputs.splice.token_inputs:
        prefix = token_input.name.removesuffix("token_ids") if several else ""
        for name in (token_input.name, token_input.mask_name, *token_input.other_names):
            if name is not None:
                found[name] = (BATCH, prefix + SEQUENCE)
    return {name: found.get(name, (BATCH, SEQUENCE)) for name in inputs.names}


def _lengths(dimensions: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {d for dims in dimensions.values() for d in dims if d.endswith(SEQUENCE)}


def _longest(inputs: ModelInputs) -> dict[str, int]:
    """How many of the user's tokens each sequence may have."""
    splice, found = inputs.splice, {}
    if splice.max_sequence_length is None:
        return {}
    dimensions = _dimensions(inputs)
    for i, token_input in enumerate(splice.token_inputs):
        taken = splice.num_virtual_tokens if i < splice.num_transformer_submodules else 0
        found[dimensions[token_input.name][1]] = splice.max_sequence_length - taken
    return found


def _sizes_of(given: Any, dimensions: Mapping[str, tuple[str, ...]]) -> dict[str, int | None]:
    """The sizes that a user's signature fixes."""
    if isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]  # Keras's own form: a list of the arguments.
    if not isinstance(given, Mapping) or set(given) != set(dimensions):
        raise ValueError(
            f"`input_signature` should be a dict with {list(dimensions)}, each a shape or a "
            f"keras.InputSpec. Received: input_signature={received(given)}"
        )
    sizes: dict[str, int | None] = {}
    for name, dims in dimensions.items():
        shape, dtype = _shape_and_dtype(given[name])
        if shape is None or len(shape) != len(dims) or dtype != "int32":
            wanted = "(" + ", ".join(dims) + ("," if len(dims) == 1 else "") + ")"
            raise ValueError(
                f"`input_signature` should give {name!r} the shape {wanted} and int32. Received: "
                f"{received(given[name])}"
            )
        for d, size in zip(dims, shape, strict=True):
            if sizes.setdefault(d, size) != size:
                raise ValueError(
                    f"`input_signature` should have one size for {d!r} in all its inputs. "
                    f"Received: {sizes[d]} and {size}, the latter for {name!r}"
                )
    return {d: size if size is None else check_size(d, size) for d, size in sizes.items()}


def _shape_and_dtype(spec: Any) -> tuple[tuple[Any, ...] | None, str]:
    """Of a shape, a `keras.InputSpec`, a `keras.KerasTensor` or a `tf.TensorSpec`."""
    shape, dtype = getattr(spec, "shape", spec), getattr(spec, "dtype", None) or "int32"
    is_shape = isinstance(shape, (list, tuple)) or hasattr(shape, "rank")
    return tuple(shape) if is_shape else None, keras.backend.standardize_dtype(dtype)
