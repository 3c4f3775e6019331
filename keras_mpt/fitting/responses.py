"""Columns of prompts and responses, as a language model trains on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.data.texts import PROMPTS, RESPONSES, strings
from keras_mpt.fitting.packing import Packing
from keras_mpt.types import TargetData


def packed(
    packing: Packing,
    texts: Mapping[str, Any],
    y: TargetData = None,
    sample_weight: TargetData = None,
    with_targets: bool = True,
) -> tuple[dict[str, np.ndarray], TargetData, TargetData]:
    """The backbone's inputs, next tokens, and weights: 0 but at the tokens of responses.

    Args:
        packing: the model's packing.
        texts: dict of a column of strings under "prompts", and where targets are made under
            "responses".
        y: targets; none, since responses are.
        sample_weight: array of weights of rows (B,), or `None`.
        with_targets: bool. Whether targets are wanted. Defaults to `True`.

    Returns:
        `(x, y, sample_weight)`: `x` a dict of int32 arrays (B, S), `y` int32 and `sample_weight`
        float32 (B, S); the last two are `None` where there are no responses.

    Raises:
        ValueError: columns of other things than strings or of different lengths, responses that do
            not fit or are empty, prompts that do not fit, or targets beside them.
    """
    prompts = strings(PROMPTS, texts[PROMPTS])
    if with_targets and sample_weight is not None and len(np.shape(sample_weight)) != 1:
        raise ValueError(
            "`sample_weight` should have one weight per row, (N,), where `x` has 'prompts'. "
            f"Received: sample_weight of shape {np.shape(sample_weight)}"
        )
    has_responses = texts.get(RESPONSES) is not None
    if with_targets and y is not None:
        raise ValueError(
            "`y` should be left out where `x` has 'prompts': their 'responses' are the targets. "
            f"Received: y of type {type(y).__name__}"
        )
    if not has_responses:
        rows = packing.rows(prompts, [[]] * len(prompts))
        return packing.inputs(rows, with_responses=False), None, sample_weight
    responses = strings(RESPONSES, texts[RESPONSES])
    check_same_rows(prompts, responses)
    rows = packing.rows(prompts, packing.response_tokens(responses))
    x = packing.inputs(rows)
    if not with_targets:
        return x, None, None
    y, weight = packing.targets(rows)
    if sample_weight is not None:
        weight = weight * to_numpy(sample_weight).astype("float32")[:, None]
    return x, y, weight


def check_same_rows(prompts: list[str], responses: list[str]) -> None:
    """Refuses another number of responses than of prompts."""
    if len(responses) != len(prompts):
        raise ValueError(
            f"`responses` should be as many as `prompts`. Received: {len(prompts)} prompts and "
            f"{len(responses)} responses"
        )
