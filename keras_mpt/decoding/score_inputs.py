"""What `score` is given, as tokens: text, prompts, and prompts with responses of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpt.data.texts import PROMPTS, RESPONSES, TEXT_NAMES, strings
from keras_mpt.decoding.candidates import Candidates, as_candidates
from keras_mpt.decoding.generation_inputs import Text, as_text, whole_tokens
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.responses import check_same_rows
from keras_mpt.fitting.tokenization import check_text_names


def has_responses(inputs: Any) -> bool:
    """Whether each row has a response of its own."""
    return isinstance(inputs, dict) and inputs.get(RESPONSES) is not None


def refuse_responses(inputs: Any) -> None:
    """Refuses responses where labels are asked for."""
    if has_responses(inputs):
        raise ValueError(
            "`inputs` should have no 'responses' where labels are asked for. Received: inputs with "
            f"{list(inputs)}"
        )


def to_score(
    model_inputs: ModelInputs, inputs: Any, candidates: Any
) -> tuple[dict[str, Any], Candidates | None]:
    """The backbone's inputs, and what is scored after them.

    Args:
        model_inputs: the model's inputs.
        inputs: what `score` was given, without task ids.
        candidates: candidates, or `None`.

    Returns:
        `(x, candidates)`; the latter are `None` where they are each row's own task's words.

    Raises:
        ValueError: candidates that are wrong, or stand beside responses, or texts that are too
            long.
    """
    splice, preprocessor = model_inputs.splice, model_inputs.preprocessor
    if has_responses(inputs):
        return _responses(model_inputs, inputs, candidates)
    chosen = None
    if candidates is not None:
        chosen = as_candidates(candidates, preprocessor, splice.vocabulary_sizes[-1])
    text = as_text(inputs, preprocessor, len(splice.token_inputs) > 1)
    if text is None:
        return inputs, chosen
    room = model_inputs.label_words.longest if chosen is None else chosen.longest
    return text_tokens(model_inputs, text, room), chosen


def text_tokens(model_inputs: ModelInputs, text: Text, room: int) -> dict[str, np.ndarray]:
    """A text's tokens; prompts, and any text where the model cuts, leave room for what follows.

    Args:
        model_inputs: the model's inputs.
        text: the text.
        room: int. The most tokens that follow it.

    Raises:
        ValueError: a text that is too long.
    """
    packing = model_inputs.packing
    assert packing is not None
    if isinstance(text.inputs, list) and (text.are_prompts or packing.truncation_side):
        free = [packing.room_for(room)] * len(text.inputs)
        rows = packing.rows(text.inputs, [[]] * len(text.inputs), free)
        return packing.inputs(rows, with_responses=False)
    return whole_tokens(text, model_inputs, "what follows them is scored")


def _responses(
    model_inputs: ModelInputs, inputs: dict[str, Any], candidates: Any
) -> tuple[dict[str, np.ndarray], Candidates]:
    """Prompts, and each row's own response as its one candidate."""
    if candidates is not None:
        raise ValueError(
            "`candidates` should be left out where `inputs` have 'responses': either are scored. "
            f"Received: candidates={candidates!r}"
        )
    packing = model_inputs.packing
    if packing is None:
        model_inputs.check_names(inputs)
    check_text_names(model_inputs, [name for name in TEXT_NAMES if name in inputs])
    assert packing is not None
    prompts, responses = (strings(name, inputs[name]) for name in (PROMPTS, RESPONSES))
    check_same_rows(prompts, responses)
    rows = packing.rows(prompts, packing.response_tokens(responses))
    own = as_candidates(
        [[tokens] for tokens in rows.responses], None, packing.splice.vocabulary_sizes[-1]
    )
    return packing.inputs(rows, with_responses=False), own
