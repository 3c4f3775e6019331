"""The embeddings that `prompt_embeds` gives are those that transformers makes of the same input."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.parity.families import measured_on
from tests.parity.measure import (
    LENGTH,
    TASK_IDS,
    TOLERANCE,
    data,
    difference,
    load_peft_adapter,
    our_inputs,
    torch,
)

CAUSAL = [f.name for f in measured_on(keras.backend.backend()) if f.task_type == "CAUSAL_LM"]


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_of_embeddings_are_ours(name, pair_of):
    pair, d = pair_of(name), data()
    model, x = load_peft_adapter(pair), {**our_inputs(pair, d), "task_ids": TASK_IDS}
    ours = ops.convert_to_numpy(model(x))
    for b, row in enumerate(model.prompt_embeds(x)):
        with torch.no_grad():
            theirs = pair.base(inputs_embeds=torch.tensor(row)[None]).logits[0, LENGTH:].numpy()
        count = len(theirs)
        assert difference(ours[b, :count], theirs, np.ones(count)) <= TOLERANCE
