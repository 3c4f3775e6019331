"""How likely words are in the place of a text's mask: a classifier by label."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.decoding.calibration import content_free
from keras_mpt.decoding.candidates import Candidates, as_candidates, words_of_rows
from keras_mpt.decoding.compiled import CompiledFunctions
from keras_mpt.decoding.decoder import log_softmax
from keras_mpt.decoding.generation_inputs import without_task_ids
from keras_mpt.decoding.scoring import Options, in_batches
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.mask_text import MaskText
from keras_mpt.fitting.preparation import preparation_of
from keras_mpt.types import TaskIds, Tensor

# Texts that say nothing, before the mask: Zhao et al. 2021, section 5.
_CONTENT_FREE = ("", "N/A ")


def score_masks(
    functions: CompiledFunctions,
    model: Any,
    inputs: Any,
    candidates: Any,
    task_ids: TaskIds | None,
    options: Options,
) -> tuple[np.ndarray, Candidates]:
    """The scores (B, C), and the candidates; see `PromptTunedMaskedLM.score`.

    Args:
        functions: the model's.
        model: a `PromptTunedMaskedLM`.
        inputs: as `PromptTunedMaskedLM.score` takes them.
        candidates: likewise.
        task_ids: likewise.
        options: how they are scored.
    """
    options.check()
    model_inputs, chosen = model.model_inputs, None
    if candidates is not None:
        size = model_inputs.splice.vocabulary_size
        chosen = as_candidates(candidates, model_inputs.preprocessor, size)
        _check_single(chosen)
    inputs, task_ids = without_task_ids(inputs, task_ids)
    x = _rows(model, inputs, task_ids)
    rows, tasks = len(x[MASK_POSITIONS]), x.get("task_ids")
    if chosen is None:
        chosen = words_of_rows(model_inputs.label_words, tasks, rows)
    chosen.check_rows(rows)
    scores = _scores(functions, model, x, chosen, options)
    if options.calibrate is not False:
        texts = _without_content(model_inputs.mask_text, options.calibrate)
        free = content_free(texts, model_inputs, inputs, rows, tasks, chosen)
        own = None if tasks is None else tasks[free.rows]
        found = _rows(model, free.texts, own)
        of_free = chosen.repeated(free.rows)
        scores = free.calibrated(scores, _scores(functions, model, found, of_free, options))
    return scores, chosen


def _rows(model: Any, inputs: Any, task_ids: TaskIds | None) -> dict[str, np.ndarray]:
    """The checked inputs, with one place for each row."""
    x = dict(inputs) if isinstance(inputs, dict) else {"text": inputs}
    if task_ids is not None:
        x["task_ids"] = task_ids
    x, _, _ = preparation_of(model, with_targets=False)(x)
    if x[MASK_POSITIONS].shape[1] != 1:
        raise ValueError(
            f"`{MASK_POSITIONS}` should be one per row where it is asked which candidate stands "
            f"there. Received: {MASK_POSITIONS} of shape {x[MASK_POSITIONS].shape}"
        )
    if "task_ids" in x:
        x["task_ids"] = np.broadcast_to(x["task_ids"], len(x[MASK_POSITIONS]))
    return x


def _scores(
    functions: CompiledFunctions,
    model: Any,
    x: dict[str, np.ndarray],
    chosen: Candidates,
    options: Options,
) -> np.ndarray:
    """The scores (B, C) of checked rows; −∞ where a row has no such candidate."""
    token_input = model.splice.token_inputs[0]
    mask_name = token_input.mask_name
    there = x[token_input.name] if mask_name is None else x[mask_name]
    # The last column that a row has: all of them where padding is known by its id alone.
    width = there.shape[1]
    ends = np.full(len(there), width)
    if mask_name is not None:
        ends = width - (there[:, ::-1] != 0).argmax(axis=1)
    first = np.asarray(chosen.token_ids[..., 0])
    log_p = functions.of(_log_p, model)
    cut = (token_input.name, mask_name, *token_input.other_names)

    def find(rows: np.ndarray, longest: int) -> np.ndarray:
        own = {n: v[rows][:, :longest] if n in cut else v[rows] for n, v in x.items()}
        return to_numpy(log_p((own, first[chosen.lists_of(rows)])))

    return in_batches(find, ends, chosen, options.batch_size)


def _log_p(model: Any, given: tuple[dict[str, Tensor], Tensor]) -> Tensor:
    """The log-probabilities (B, C) of tokens (B, C) at each row's one place."""
    x, tokens = given
    logits = model.call(x, training=False)
    return ops.take_along_axis(log_softmax(logits[:, 0]), ops.cast(tokens, "int32"), axis=-1)


def _check_single(candidates: Candidates) -> None:
    """Refuses candidates of several tokens: a mask stands for one."""
    several = np.argwhere(candidates.lengths > 1)
    if len(several):
        row, which = several[0]
        raise ValueError(
            "`candidates` should have one token each, since a mask stands for one. Received: "
            f"candidates with {candidates.given[row][which]!r}, which has "
            f"{candidates.lengths[row, which]}"
        )


def _without_content(mask_text: MaskText | None, calibrate: Any) -> Any:
    if calibrate is True and mask_text is not None:
        return [text + mask_text.mask_token for text in _CONTENT_FREE]
    return calibrate
