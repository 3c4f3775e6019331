"""Text from prompt-tuned language models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy, to_power_of_two, up_to_step
from keras_mpt.checks import check_flags, check_size
from keras_mpt.decoding.decoder import Decoder, KeepsKeys
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.generation_inputs import (
    as_text,
    check_positions,
    check_room,
    check_rows_are_right,
    checked_stops,
    tokenized,
    trim,
    without_input,
    without_task_ids,
    without_text_lengths,
)
from keras_mpt.decoding.sampler_steps import SamplerSteps, is_plain, keeps_rows
from keras_mpt.decoding.state import Batch
from keras_mpt.decoding.watched import draw
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.types import Sampler, TaskIds, Tensor


def generate(
    decoding: Decoding,
    model_inputs: ModelInputs,
    sampler: Sampler,
    inputs: Any,
    *,
    max_length: int | None,
    stop_token_ids: Any,
    strip_prompt: bool,
    task_ids: TaskIds | None,
    use_cache: bool,
) -> str | list[str] | dict[str, np.ndarray]:
    """Continues text; see `LanguageModel.generate`."""
    preprocessor, reader = model_inputs.preprocessor, decoding.reader
    if max_length is not None:
        max_length = check_size("max_length", max_length)
    check_flags({"strip_prompt": strip_prompt, "use_cache": use_cache})
    splice = model_inputs.splice
    stops = checked_stops(stop_token_ids, preprocessor, splice.vocabulary_sizes[-1])
    inputs, task_ids = without_task_ids(inputs, task_ids)
    text = as_text(inputs, preprocessor, len(splice.token_inputs) > 1)
    if text is not None and max_length is not None:
        check_positions(max_length, splice)
    tokens = inputs if text is None else tokenized(text, model_inputs, max_length)
    if task_ids is not None:
        tokens = {**tokens, "task_ids": task_ids}
    x = {name: to_numpy(value) for name, value in model_inputs.prepare(tokens).items()}
    check_room(x[reader.mask_name], reader.mask_name, None if text is not None else max_length)
    *encoder_inputs, last = splice.token_inputs
    for token_input in encoder_inputs:
        trim(x, token_input)
    # Positions of the user's own are no cache's.
    own_positions = any(name in x for name in last.other_names)
    rows, width = x[reader.mask_name].shape
    decoder = decoding.decoder(
        use_cache and not own_positions,
        rows if keeps_rows(sampler) else None,
        width,
        x.get("task_ids"),
    )
    given = x[reader.mask_name] != 0
    lengths = given.sum(axis=1)
    x = without_text_lengths(x, lengths)
    drawing = decoding.functions.drawing(generate_step, decoder, sampler)
    token_ids = np.zeros(given.shape, "int32")
    mask, is_right = np.zeros(given.shape, bool), np.zeros(rows, bool)
    for of_batch in _batches(lengths, are_alike=splice.is_after):
        own = {name: value[of_batch] for name, value in x.items()}
        batch, columns = _batch(decoding, decoder, own, stops or ())
        *drawn, right = map(to_numpy, drawing(batch, stop_token_ids=stops))
        if columns is not None:
            drawn = [np.take_along_axis(values, columns, axis=1) for values in drawn]
        # Of a row that is repeated the last draw is taken, in all three.
        token_ids[of_batch], mask[of_batch], is_right[of_batch] = *drawn, right
    check_rows_are_right(is_right)
    if stops:  # Padding that nothing was drawn in the place of is as it was.
        is_left = np.logical_not(mask) & (token_ids == _no_stop(stops))
        token_ids = np.where(is_left, x[reader.ids_name], token_ids).astype("int32")
    made = {reader.ids_name: token_ids, reader.mask_name: mask}
    if strip_prompt:
        made = without_input(made, given, reader.ids_name, reader.mask_name)
    if text is None:
        return made
    assert preprocessor is not None
    made_text: list[str] = preprocessor.generate_postprocess(made)
    return made_text[0] if text.is_one else made_text


def _batches(lengths: np.ndarray, are_alike: bool) -> list[np.ndarray]:
    """The rows that are continued at once: all of them, or those that are equally long."""
    if not are_alike:
        return [np.arange(len(lengths))]
    # Of few numbers of rows, as each is compiled.
    return [to_power_of_two(np.flatnonzero(lengths == n)) for n in np.unique(lengths)]


def _no_stop(stops: Sequence[int]) -> int:
    """The first token id that ends no row."""
    return next(token for token in itertools.count() if token not in stops)


def _batch(
    decoding: Decoding, decoder: Decoder, x: dict[str, np.ndarray], stops: Sequence[int] = ()
) -> tuple[Batch, np.ndarray | None]:
    """A compiled call's arrays, from checked inputs; and where the given columns stand in them.

    A row would end at once where padding is a token to stop at, as an end token often is both.
    """
    reader, others = decoder.reader, dict(x)
    token_ids, mask = others.pop(reader.ids_name), others.pop(reader.mask_name)
    own = (mask != 0).sum(axis=1)
    room = mask.shape[1] - own
    token_ids, lengths, context, moved = decoding.placed(decoder, token_ids, own, others, room)
    if moved is not None:
        mask = (np.arange(token_ids.shape[1]) < lengths[:, None]).astype("int32")
    is_end = np.isin(token_ids, list(stops)) & (np.asarray(mask) == 0)
    token_ids = np.where(is_end, _no_stop(stops), token_ids).astype(token_ids.dtype)
    columns = token_ids.shape[1]
    if decoder.reads_once:  # The columns in which all rows have text.
        columns = up_to_step(lengths.min())
    return Batch(token_ids, mask, token_ids[:, :columns], context), moved


def generate_step(
    decoder: Decoder,
    batch: Batch,
    sampler: Sampler,
    model: keras.Model,
    stop_token_ids: tuple[int, ...] | None,
    steps: SamplerSteps | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch: a function to compile.

    Args:
        decoder: the decoder.
        batch: its arrays.
        sampler: a keras-hub sampler.
        model: the model, whose variables the sampler's loop is given on JAX.
        stop_token_ids: ints that end a row, or `None`.
        steps: how the sampler's steps run; `None`: as they are.

    Returns:
        The generated tokens (B, S), their mask, and for each row whether its logits were numbers.
    """
    import keras_hub

    token_ids = ops.cast(batch.token_ids, "int32")
    given = ops.cast(batch.mask, "bool")
    text_ids = ops.cast(batch.text_ids, "int32")
    room = token_ids.shape[1] - text_ids.shape[1]
    # Contrastive search compares the new token's states with those of the text.
    is_contrastive = isinstance(sampler, keras_hub.samplers.ContrastiveSampler)
    index = ops.min(ops.sum(ops.cast(given, "int32"), axis=-1))
    states = first = None
    if steps is None and keeps_rows(sampler) and isinstance(decoder, KeepsKeys):
        last = ops.broadcast_to(index - 1, token_ids.shape[:1])
        logits, _, cache = decoder.run_text(text_ids, batch.context, room, last)
        first = None if logits is None else logits[:, 0]
    elif steps is None or is_contrastive:
        states, cache = decoder.read(text_ids, batch.context, room, is_contrastive)
    else:
        last = ops.broadcast_to(index - 1, token_ids.shape[:1]) if is_plain(sampler) else None
        first, cache = steps.read(decoder, text_ids, batch.context, room, last)
    if states is not None:
        states = ops.pad(states, [(0, 0), (0, room), (0, 0)])
    token_ids, is_right = draw(
        sampler,
        decoder.next_logits,
        cache,
        steps,
        first,
        prompt=token_ids,
        index=index,
        mask=given,
        stop_token_ids=stop_token_ids,
        hidden_states=states,
        model=model,
    )
    mask = ops.ones_like(given)
    if stop_token_ids is not None:
        stops = [ops.equal(token_ids, stop) for stop in stop_token_ids]
        ends = ops.any(ops.stack(stops), axis=0) & ops.logical_not(given)
        ends = ops.cast(ends, "int32")
        mask = ops.equal(ops.cumsum(ends, axis=-1) - ends, 0)
    return token_ids, mask, ops.all(ops.reshape(is_right, (token_ids.shape[0], -1)), axis=1)


def sampler_of(sampler: Any) -> Sampler:
    """A keras-hub sampler, from one or the name of one."""
    import keras_hub

    try:
        found = keras_hub.samplers.get(sampler)
    except (ValueError, KeyError, TypeError):  # keras-hub's three ways to say that it knows none.
        found = None
    if not isinstance(found, keras_hub.samplers.Sampler):
        raise ValueError(
            "`sampler` should be a keras_hub.samplers.Sampler or the name of one, such as 'greedy' "
            f"or 'top_k'. Received: sampler={sampler!r}"
        )
    if getattr(found, "return_all_beams", False):
        raise ValueError(
            "`sampler` should give one text per row: a BeamSampler with return_all_beams=False "
            "gives the likeliest beam. Received: one with return_all_beams=True"
        )
    return found
