"""How likely a prompt-tuned language model finds given continuations: a classifier by label."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy, to_power_of_two
from keras_mpt.checks import check_choice, check_flags
from keras_mpt.decoding.candidates import Candidates, as_candidates, pairs
from keras_mpt.decoding.decoder import Decoder
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.generation_inputs import (
    as_text,
    check_right_padding,
    check_rows_are_right,
    tokenized,
    trim,
    up_to_step,
    without_task_ids,
)
from keras_mpt.decoding.state import Context, Pairs
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.types import TaskIds, Tensor, Tensors


def score(
    decoding: Decoding,
    model_inputs: ModelInputs,
    inputs: Any,
    candidates: Any,
    *,
    task_ids: TaskIds | None,
    normalize: str,
    use_cache: bool,
) -> tuple[np.ndarray, Candidates]:
    """The scores (B, C), and the candidates; see `LanguageModel.score`."""
    check_choice("normalize", normalize, ("sum", "mean"))
    check_flags({"use_cache": use_cache})
    splice = model_inputs.splice
    chosen = as_candidates(candidates, model_inputs.preprocessor, splice.vocabulary_sizes[-1])
    x, lengths = _rows_to_score(model_inputs, inputs, task_ids)
    chosen.check_rows(len(lengths))
    taken = splice.num_virtual_tokens * splice.states_have_prompt
    limit = splice.max_sequence_length
    left = None if limit is None else limit - taken
    longest = int(lengths.max())
    if left is not None and longest + chosen.longest > left:
        raise ValueError(
            f"`inputs` and `candidates` should have at most {left} tokens together: the backbone "
            f"has {limit} positions and the prompt takes {taken}. Received: an input of {longest} "
            f"tokens and a candidate of {chosen.longest}"
        )
    # One width for texts of about one length; later tokens cannot reach back.
    width = up_to_step(longest) + chosen.longest
    width = width if left is None else min(width, left)
    scores = _log_likelihoods(decoding, x, lengths, chosen, width, use_cache)
    check_rows_are_right(~np.isnan(scores).any(axis=1))
    if normalize == "mean":
        scores /= chosen.lengths
    return scores, chosen


def _rows_to_score(
    model_inputs: ModelInputs, inputs: Any, task_ids: TaskIds | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The checked inputs, no wider than their longest row, and each row's length (B,)."""
    inputs, task_ids = without_task_ids(inputs, task_ids)
    *encoder_inputs, last = model_inputs.splice.token_inputs
    text = as_text(inputs, model_inputs.preprocessor, bool(encoder_inputs))
    ids_name, mask_name = last.name, str(last.mask_name)
    tokens = inputs
    if text is not None:
        assert model_inputs.preprocessor is not None
        # One more than fits: the preprocessor cuts longer text off without a word.
        fits = model_inputs.preprocessor.sequence_length
        tokens = tokenized(text, model_inputs.preprocessor, fits + 1)
        longest = int(tokens[mask_name].sum(axis=1).max())
        if longest > fits:
            raise ValueError(
                f"`inputs` should be texts of at most {fits} tokens "
                "(`preprocessor.sequence_length` sets it): what follows them is scored. "
                "Received: a longer one"
            )
        for name in (ids_name, mask_name):
            tokens[name] = tokens[name][:, :longest]
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
    decoder, rows, others = decoding.decoder(use_cache), len(lengths), dict(x)
    ids = others.pop(decoding.reader.ids_name).astype("int32")
    ids = np.pad(ids, [(0, 0), (0, width - ids.shape[1])])
    prompts = decoder.row_prompts(others.pop("task_ids", None), rows)
    cache: Tensors = Context(prompts, others)
    if decoder.reads_once:
        cache = decoding.functions.of(_read, decoder)((ids, cache))
    find = decoding.functions.of(_score, decoder)
    scores = np.zeros((rows, len(candidates)), "float32")
    for row_of, which in pairs(lengths, len(candidates)):
        tokens, sizes = (to_power_of_two(a) for a in candidates.of_pairs(row_of, which))
        start = int(lengths[row_of[0]])
        looked_up = decoder.pair_up(ids, to_power_of_two(row_of), start, tokens)
        rows_of, of, text = (a.astype("int32") for a in looked_up)
        found = find((cache, Pairs(rows_of, of, text, np.asarray(start, "int32"), tokens, sizes)))
        scores[row_of, which] = to_numpy(found)[: len(row_of)]
    return scores


def _read(decoder: Decoder, given: tuple[Tensor, Context]) -> Tensors:
    """What is kept of prompts and inputs, with room for candidates."""
    return decoder.read(*given)[1]


def _score(decoder: Decoder, given: tuple[Tensors, Pairs]) -> Tensor:
    return decoder.score(*given)
