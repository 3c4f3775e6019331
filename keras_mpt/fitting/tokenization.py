"""Text among a model's inputs, as tokens: whichever way it comes in, and under which names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_mpt.arrays import to_numpy
from keras_mpt.data.columns import as_columns
from keras_mpt.data.texts import PROMPTS, RESPONSES, TEXT_NAMES, Row, text_rows
from keras_mpt.fitting.cut_text import warn_of_cut_text
from keras_mpt.fitting.mask_answers import asked, asked_tf
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.responses import packed, packed_tf
from keras_mpt.fitting.text import (
    both_weights,
    is_symbolic,
    looked_at,
    tokens_of,
    tokens_of_symbolic,
)
from keras_mpt.types import Data, TargetData


def tokenize(
    inputs: ModelInputs,
    x: Data,
    y: TargetData = None,
    sample_weight: TargetData = None,
    noting: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    with_targets: bool = True,
) -> tuple[Data, TargetData, TargetData]:
    """`(x, y, sample_weight)` with text in `x` turned into the backbone's inputs.

    Args:
        inputs: the model's inputs.
        x: inputs, or `{"text": …, "task_ids": …}`, where text is a list of strings or a pair
            of lists; an encoder-decoder takes "encoder_text" and "decoder_text", and both kinds
            of language models "prompts" and "responses".
        y: targets. A language model's preprocessor makes them, where none are given. A class per
            row is answered by a label word of the row's task; of a masked one, whose texts hold the
            mask token where there are any, all targets are such labels.
        sample_weight: weights, likewise.
        noting: what functions are wrapped in that look at text inside `tf.data`, once it is there.
            Defaults to nothing.
        with_targets: bool. Whether targets are wanted. Defaults to `True`.

    Returns:
        The three.
    """
    is_table = not isinstance(x, dict)
    x = as_columns(x)
    if is_table and isinstance(x, dict):
        _check_columns(inputs, x)
    if inputs.preprocessor is not None and not isinstance(x, dict) and not inputs.has_tasks:
        x = {"text": x}
    given = [n for n in TEXT_NAMES if n in x] if isinstance(x, dict) else []
    if inputs.preprocessor is None or not given:
        return x, y, sample_weight
    check_text_names(inputs, given)
    also = [name for name in inputs.names if name != "task_ids" and x.get(name) is not None]
    if also:
        raise ValueError(
            f"`x` should have text or tokens, not both. Received: x with {given} and {also}"
        )
    texts = {name: x[name] for name in given}
    others = {name: value for name, value in x.items() if name not in given}
    if with_targets and inputs.packing is not None and given == ["text"] and _are_labels(y):
        texts = {PROMPTS: texts["text"]}
    if PROMPTS in texts:
        columns = (texts, y, sample_weight, x.get("task_ids"), with_targets)
        if is_symbolic(texts):
            tokens, y, sample_weight = packed_tf(inputs, *columns, noting)
        else:
            tokens, y, sample_weight = packed(inputs, *columns)
        return {**others, **tokens}, y, sample_weight
    num_rows = _num_rows(y, x.get("task_ids"))
    if inputs.mask_text is not None and (y is not None or not with_targets):
        task_ids = x.get("task_ids")
        if is_symbolic(texts):
            tokens, y, weight = asked_tf(inputs, texts, task_ids, y, noting)
        else:
            tokens, y, weight = asked(inputs, texts, task_ids, y, num_rows)
        return {**others, **tokens}, y, both_weights(weight, sample_weight)
    if is_symbolic(texts):
        texts = looked_at(texts, noting(functools.partial(look_at_text, inputs)))
        tokens = tokens_of_symbolic(inputs.preprocessor, texts)
    else:
        rows = {name: text_rows(text, num_rows) for name, text in texts.items()}
        _refuse_masks(inputs, rows)
        tokens = tokens_of(inputs.preprocessor, rows)
        made = keras.utils.unpack_x_y_sample_weight(tokens)[0]
        names = [token_input.mask_name for token_input in inputs.splice.token_inputs]
        masks = [to_numpy(made[name]) for name in names if name in made]
        if any((mask != 0).all(axis=1).any() for mask in masks):  # Rows without padding.
            warn_of_cut_text(inputs, rows)
    tokens, made_y, made_weight = keras.utils.unpack_x_y_sample_weight(tokens)
    if y is None:
        y, sample_weight = made_y, both_weights(made_weight, sample_weight)
    return {**others, **tokens}, y, sample_weight


def look_at_text(inputs: ModelInputs, texts: dict[str, Any]) -> None:
    """Checks text that `tf.data` has, of which tokens are made symbolically.

    Args:
        inputs: the model's inputs.
        texts: dict of arrays of strings, or of tuples of two for pairs, by name.
    """
    rows = {name: text_rows(text) for name, text in texts.items()}
    _refuse_masks(inputs, rows)
    warn_of_cut_text(inputs, rows, looked_at=1)


def _refuse_masks(inputs: ModelInputs, rows: dict[str, list[Row]]) -> None:
    """Refuses texts whose masks nothing is said of."""
    if inputs.mask_text is not None:
        inputs.mask_text.refuse_masks(rows["text"])


def _check_columns(inputs: ModelInputs, table: dict[str, Any]) -> None:
    """Refuses a table with columns that the model does not take."""
    known = [*inputs.names, *([] if inputs.preprocessor is None else TEXT_NAMES)]
    if any(name not in known for name in table):
        task_ids = ", 'task_ids': data['task_ids']" if inputs.has_tasks else ""
        raise ValueError(
            f"`x` should have the columns that the model takes, such as {{'text': data['text']"
            f"{task_ids}}}, and `y` that of the targets, such as data['label']. Received: a "
            f"table with the columns {list(table)}"
        )


def check_text_names(inputs: ModelInputs, given: list[str]) -> None:
    """Refuses text under other names than the model's.

    Args:
        inputs: the model's inputs.
        given: list of strings. The names of text.
    """
    has_sides = len(inputs.splice.token_inputs) > 1
    wanted = ["encoder_text", "decoder_text"] if has_sides else ["text"]
    if inputs.packing is not None and (PROMPTS in given or RESPONSES in given):
        wanted = [PROMPTS, RESPONSES]
    if given not in (wanted, [PROMPTS] if PROMPTS in wanted else wanted):
        raise ValueError(f"`x` should have text under {wanted}. Received: x with {given}")


def _are_labels(y: TargetData) -> bool:
    """Whether targets are a class per row, rather than a token per token."""
    shape: Any = getattr(y, "shape", None)
    if shape is None or getattr(shape, "rank", True) is None:
        return False
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _num_rows(*columns: Any) -> int | None:
    """How many rows the first of some data has that has rows."""
    for column in columns:
        if isinstance(column, (list, tuple)):
            return len(column)
        shape: Any = getattr(column, "shape", None)
        if shape is not None and getattr(shape, "rank", True) and len(shape):
            return None if shape[0] is None else int(shape[0])
    return None
