"""Greedy text from rows of different lengths, token for token as one row at a time gives it."""

import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.families.configurations import FAMILIES, VOCABULARY
from tests.families.measure import move_weights
from tests.marks import IS_EAGER, slow_on_jax

NAMES = list(FAMILIES)[list(FAMILIES).index("BLOOM") :]  # Those before are encoders.
TASK_IDS = [0, 2, 1, 2]
LENGTHS, NEW = np.array([4, 2, 3, 1]), 3


@slow_on_jax
@pytest.mark.parametrize("name", NAMES if IS_EAGER else ["GPT-2"])
def test_ragged_rows_are_brute_force_s(name):
    backbone = FAMILIES[name].build()
    move_weights(backbone)
    sides = [t.name.removesuffix("token_ids") for t in backbone.inputs if "token_ids" in t.name]
    task_type = "CAUSAL_LM" if len(sides) == 1 else "SEQ_2_SEQ_LM"
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=3, num_tasks=3
    )
    model = keras_mpt.prompt_tune(backbone, config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    model.compile(sampler="greedy")
    width = LENGTHS.max() + NEW
    mask = (np.arange(width) < LENGTHS[:, None]).astype("int32")
    x = {}
    for side in sides:
        x[f"{side}token_ids"] = rng.integers(2, VOCABULARY, mask.shape) * mask
        x[f"{side}padding_mask"] = mask
    made = model.generate(x, task_ids=TASK_IDS, stop_token_ids=None)
    last = sorted(sides)[0]  # A decoder's, or the only one.
    for row, length in enumerate(LENGTHS):
        text = x[f"{last}token_ids"][row, :length]
        others = {
            f"{side}token_ids": x[f"{side}token_ids"][row : row + 1, :length]
            for side in sides
            if side != last
        }
        for _ in range(NEW):
            one = {**others, f"{last}token_ids": text[None]}
            one |= {n.replace("token_ids", "padding_mask"): np.ones_like(v) for n, v in one.items()}
            logits = ops.convert_to_numpy(model({**one, "task_ids": TASK_IDS[row]}))[0, -1]
            text = np.append(text, logits.argmax())
        np.testing.assert_array_equal(made[f"{last}token_ids"][row, : length + NEW], text)
