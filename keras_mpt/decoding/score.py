"""How likely a prompt-tuned language model finds given continuations: a classifier by label."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy, to_power_of_two
from keras_mpt.decoding.beginnings import runs
from keras_mpt.decoding.calibration import content_free
from keras_mpt.decoding.candidates import Candidates, words_of_rows
from keras_mpt.decoding.decoder import Decoder, log_softmax
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.generation_inputs import (
    Text,
    check_right_padding,
    room,
    trim,
    without_task_ids,
    without_text_lengths,
)
from keras_mpt.decoding.score_inputs import text_tokens, to_score
from keras_mpt.decoding.scoring import Options, in_batches
from keras_mpt.decoding.state import Beginnings, Rows
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.types import TaskIds, Tensor, Tensors


def score(
    decoding: Decoding,
    model_inputs: ModelInputs,
    inputs: Any,
    candidates: Any,
    task_ids: TaskIds | None,
    options: Options,
) -> tuple[np.ndarray, Candidates]:
    """The scores (B, C), and the candidates; see `LanguageModel.score`."""
    options.check()
    inputs, task_ids = without_task_ids(inputs, task_ids)
    tokens, chosen = to_score(model_inputs, inputs, candidates)
    x, lengths = _rows_to_score(model_inputs, tokens, task_ids)
    tasks = x.get("task_ids")
    if chosen is None:
        chosen = words_of_rows(model_inputs.label_words, tasks, len(lengths))
    chosen.check_rows(len(lengths))
    free = None
    if options.calibrate is not False:
        free = content_free(options.calibrate, model_inputs, inputs, len(lengths), tasks, chosen)
    scores = _scores(decoding, model_inputs, x, lengths, chosen, options)
    if free is not None:
        own = None if tasks is None else tasks[free.rows]
        of_free = chosen.repeated(free.rows)
        tokens = text_tokens(model_inputs, Text(free.texts, False), chosen.longest)
        x, lengths = _rows_to_score(model_inputs, tokens, own)
        found = _scores(decoding, model_inputs, x, lengths, of_free, options)
        scores = free.calibrated(scores, found)
    return scores, chosen


def _scores(
    decoding: Decoding,
    model_inputs: ModelInputs,
    x: dict[str, np.ndarray],
    lengths: np.ndarray,
    chosen: Candidates,
    options: Options,
) -> np.ndarray:
    """The scores (B, C) of checked rows; −∞ where a row has no such candidate."""
    splice = model_inputs.splice
    left = room(splice)
    longest = int(lengths.max())
    if left is not None and longest + chosen.longest > left:
        limit = splice.max_sequence_length
        assert limit is not None
        raise ValueError(
            f"`inputs` and `candidates` should have at most {left} tokens together: the backbone "
            f"has {limit} positions and the prompt takes {limit - left}. Received: an input of "
            f"{longest} tokens and a candidate of {chosen.longest}"
        )

    def find(rows: np.ndarray, width: int) -> np.ndarray:
        # Later tokens cannot reach back.
        width += chosen.longest - 1
        width = width if left is None else min(width, left)
        own, of_rows = {name: value[rows] for name, value in x.items()}, chosen.repeated(rows)
        return _log_likelihoods(decoding, own, lengths[rows], of_rows, width, options.use_cache)

    texts = x[decoding.reader.ids_name] if splice.is_after else None
    scores = in_batches(find, lengths, chosen, options.batch_size, texts)
    if options.normalize == "mean":
        scores /= np.maximum(chosen.lengths, 1)
    return scores


def _rows_to_score(
    model_inputs: ModelInputs, tokens: dict[str, Any], task_ids: TaskIds | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The checked inputs, no wider than their longest row, and each row's length (B,)."""
    *encoder_inputs, last = model_inputs.splice.token_inputs
    ids_name, mask_name = last.name, str(last.mask_name)
    if task_ids is not None:
        tokens = {**tokens, "task_ids": task_ids}
    x = {name: to_numpy(value) for name, value in model_inputs.prepare(tokens).items()}
    own_positions = [name for name in last.other_names if name in x]
    if own_positions:
        raise ValueError(
            f"`inputs` should leave out {own_positions}: candidates stand right behind each row's "
            f"tokens, which are counted from 0. Received: inputs with {own_positions}"
        )
    check_right_padding(x[mask_name], mask_name)
    for token_input in encoder_inputs:
        trim(x, token_input)
    lengths = (x.pop(mask_name) != 0).sum(axis=1)
    x = without_text_lengths(x, lengths)
    x[ids_name] = x[ids_name][:, : lengths.max()]
    return x, lengths


def _log_likelihoods(
    decoding: Decoding,
    x: dict[str, np.ndarray],
    lengths: np.ndarray,
    candidates: Candidates,
    width: int,
    use_cache: bool,
) -> np.ndarray:
    """The sums (B, C)."""
    others, more = dict(x), width + candidates.longest
    decoder = decoding.decoder(use_cache, len(lengths), more, x.get("task_ids"))
    ids = others.pop(decoding.reader.ids_name).astype("int32")[:, :width]
    ids = np.pad(ids, [(0, 0), (0, width - ids.shape[1])])
    placed = decoding.placed(decoder, ids, lengths, others, candidates.longest - 1)
    ids, lengths, context = placed.token_ids, placed.lengths, placed.context
    first = to_power_of_two(candidates.token_ids[:, :, 0].T).T
    given = Rows(ids, lengths.astype("int32") - 1, first, context)
    found, cache = decoding.functions.of(_first, decoder)(given)
    scores = np.array(to_numpy(found)[:, : len(candidates)])
    find = decoding.functions.of(_rest, decoder)
    for chunk in runs(lengths, candidates):
        *asked_of, which = chunk
        rows, tokens, following, sizes = map(to_power_of_two, asked_of)
        text = decoder.text_of_runs(ids, rows, int(lengths[rows[0]]), tokens)
        start = np.asarray(lengths[rows[0]], "int32")
        asked = Beginnings(rows, text, start, tokens, following, sizes)
        sums = to_numpy(find((cache if decoder.reads_once else context, asked)))
        i, j = np.nonzero(which >= 0)
        scores[chunk.rows[i], which[i, j]] += sums[i, j]
    return scores


def _first(decoder: Decoder, rows: Rows) -> tuple[Tensor, Tensors]:
    """The log-probabilities (B, C) of candidates' first tokens, and what is kept of the text."""
    logits, cache = decoder.first_logits(ops.cast(rows.text_ids, "int32"), rows.context, rows.last)
    first = ops.take_along_axis(log_softmax(logits[:, 0]), rows.first, axis=-1)
    return first, cache if decoder.reads_once else ()


def _rest(decoder: Decoder, given: tuple[Tensors, Beginnings]) -> Tensor:
    return decoder.score(*given)
