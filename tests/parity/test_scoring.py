"""Log-likelihoods of candidates against PEFT's logits on the same weights, one row at a time."""

import keras
import numpy as np
import pytest

from tests.parity import measure
from tests.parity.families import ALL_ON

torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

NAMES = ("gpt2", "llama", "t5", "bart") if keras.backend.backend() == ALL_ON else ("gpt2",)
CANDIDATES = [[7], [9, 8, 30], [12, 12]]
LENGTHS = [7, 2, 5, 2]  # Of each row's text, and of the text that an encoder reads.


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_peft_s(name, pair_of):
    pair = pair_of(name)
    ours = measure.load_peft_adapter(pair)
    rng = np.random.default_rng(5)
    shape = (measure.ROWS, measure.TOKENS)
    ids, encoder_ids = (rng.integers(measure.LOWEST, measure.HIGHEST, shape) for _ in range(2))
    mask = (np.arange(measure.TOKENS) < np.reshape(LENGTHS, (-1, 1))).astype("int32")
    if pair.family.task_type == "SEQ_2_SEQ_LM":
        x = {"encoder_token_ids": encoder_ids, "encoder_padding_mask": mask[::-1]}
        x |= {"decoder_token_ids": ids, "decoder_padding_mask": mask}
    else:
        x = {"token_ids": ids, "padding_mask": mask}
    found = ours.score(x, CANDIDATES, task_ids=measure.TASK_IDS)
    expected = np.zeros_like(found)
    for row, task in enumerate(measure.TASK_IDS):
        text = ids[row, : LENGTHS[row]]
        encoder_text = encoder_ids[row, : LENGTHS[::-1][row]]
        for column, candidate in enumerate(CANDIDATES):
            whole = np.concatenate([text, candidate])[None]
            logits = peft_logits(pair, whole, encoder_text[None], task)
            log_p = torch.log_softmax(logits[0].double(), dim=-1)
            places = range(len(text) - 1, len(whole[0]) - 1)
            expected[row, column] = sum(log_p[i, whole[0, i + 1]].item() for i in places)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    others = ours.score(x, CANDIDATES, task_ids=[1, 1, 2, 0])
    assert (np.abs(others - found).max(axis=1) > 0.01).all()


def peft_logits(pair, ids, encoder_ids, task):
    """PEFT's logits (1, S, V) of one row without padding."""
    mask = torch.ones((1, ids.shape[1]), dtype=torch.long)
    arguments = {"input_ids": torch.tensor(ids), "attention_mask": mask}
    if pair.family.task_type == "SEQ_2_SEQ_LM":
        embedding = pair.base.get_decoder().get_input_embeddings()
        arguments["decoder_inputs_embeds"] = embedding(torch.tensor(ids)).detach()
        arguments["decoder_attention_mask"] = mask
        arguments["input_ids"] = torch.tensor(encoder_ids)
        arguments["attention_mask"] = torch.ones((1, encoder_ids.shape[1]), dtype=torch.long)
    with torch.no_grad():
        logits = pair.model(**arguments, task_ids=torch.tensor([task])).logits
    return logits[:, measure.LENGTH :]
