"""A prompt after the text: transformers' own model on [text but its last token; prompt; the rest].

PEFT puts prompts in front alone; so what is measured here is its prompt layer's numbers, given to
transformers as embeddings in their place.
"""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.parity.families import ALL_ON
from tests.parity.generation import BASES, VOCABULARY

torch = pytest.importorskip("torch", reason="transformers' models run on PyTorch")

NAMES = ["gpt2", "llama"] if keras.backend.backend() == ALL_ON else ["gpt2"]
L, LENGTHS, TASKS = 4, [5, 3, 7, 1], [0, 2, 1, 2]
IDS = np.random.default_rng(0).integers(1, VOCABULARY, (4, 7))
MASK = (np.arange(7) < np.array([[6], [5], [7], [4]])).astype("int32")


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base, backbone = BASES[request.param](folder)
    backbone = type(backbone).from_preset(str(folder), dropout=0.0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=L, num_tasks=3, prompt_position="after"
    )
    model = keras_mpt.prompt_tune(backbone, config)
    rng = np.random.default_rng(1)
    for variable in model.prompt.weights:
        variable.assign(rng.normal(size=variable.shape))
    return base.eval(), model


def prompt_of(model, task):
    """P ∘ (cols · rows) in float64, by NumPy."""
    p, cols, rows = (np.asarray(ops.convert_to_numpy(w), "float64") for w in factors(model))
    return p * (cols[task] @ rows[task])


def factors(model):
    """P, cols and rows, by their shapes."""
    found = {len(w.shape): w for w in model.prompt.weights if len(w.shape) == 2}
    three = [w for w in model.prompt.weights if len(w.shape) == 3]
    cols = next(w for w in three if w.shape[1] == L)
    return found[2], cols, next(w for w in three if w is not cols)


def logits_of(base, prompt, ids, length, dtype=torch.float32):
    """transformers' logits at the user's tokens, of which `length` come before the answer."""
    embed = base.get_input_embeddings()
    tokens = embed(torch.tensor(np.asarray(ids)[None]))
    prompt = torch.as_tensor(prompt, dtype=tokens.dtype)[None]
    whole = torch.cat([tokens[:, : length - 1], prompt, tokens[:, length - 1 :]], dim=1)
    found = base(inputs_embeds=whole).logits[0].to(dtype)
    return torch.cat([found[: length - 1], found[length - 1 + L :]])


def test_logits_of_a_mixed_batch(both):
    base, model = both
    given = {"token_ids": IDS * MASK, "padding_mask": MASK, "task_ids": TASKS}
    for lengths in (LENGTHS, None):
        x = given if lengths is None else {**given, "text_lengths": np.array(lengths)}
        found = ops.convert_to_numpy(model(x))
        for b, size in enumerate(MASK.sum(axis=1)):
            length = size if lengths is None else lengths[b]
            with torch.no_grad():
                prompt = prompt_of(model, TASKS[b])
                expected = logits_of(base, prompt, IDS[b, :size], length).numpy()
            np.testing.assert_allclose(found[b, :size], expected, rtol=1e-5, atol=1e-5)
    # Without a length each row's prompt stands before its last token: no other sees it.
    other = ops.convert_to_numpy(model({**given, "task_ids": 1}))
    np.testing.assert_array_equal(other[0, :5], found[0, :5])
    assert np.abs(other[0, 5] - found[0, 5]).max() > 0.1


def test_one_step_trains_what_transformers_gradients_say(both):
    base, model = both
    before = [ops.convert_to_numpy(w) for w in factors(model)]
    p, cols, rows = (torch.tensor(w, requires_grad=True) for w in before)
    losses = []
    for b, length in enumerate(LENGTHS):
        size = int(MASK[b].sum())
        prompt = p * (cols[TASKS[b]] @ rows[TASKS[b]])
        logits = logits_of(base, prompt, IDS[b, : size - 1], min(length, size - 1))
        target = torch.tensor(IDS[b, 1:size])[min(length, size - 1) - 1 :]
        counted = logits[-len(target) :]
        losses.append(torch.nn.functional.cross_entropy(counted, target, reduction="none"))
    loss = torch.cat(losses).mean()
    loss.backward()
    read = MASK.copy()
    read[np.arange(4), MASK.sum(axis=1) - 1] = 0
    lengths = np.minimum(LENGTHS, read.sum(axis=1))
    y = np.roll(IDS, -1, axis=1)
    weight = (read * (np.arange(7) >= lengths[:, None] - 1)).astype("float32")
    x = {"token_ids": IDS, "padding_mask": read, "task_ids": TASKS, "text_lengths": lengths}
    model.compile(keras.optimizers.SGD(0.1))
    frozen = [ops.convert_to_numpy(w) for w in model.backbone.weights]
    history = model.fit(x, y, sample_weight=weight, verbose=0).history
    np.testing.assert_allclose(history["loss"], [loss.item()], rtol=1e-5)
    for value, start, wanted in zip(factors(model), before, (p, cols, rows), strict=True):
        moved = (start - ops.convert_to_numpy(value)) / 0.1
        np.testing.assert_allclose(moved, wanted.grad.numpy(), rtol=2e-4, atol=2e-5)
        value.assign(start)
    for value, start in zip(model.backbone.weights, frozen, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(value), start)


def test_scores_of_one_text_under_all_tasks(both):
    base, model = both
    candidates = [[3], [8, 9], [8, 4, 5]]
    texts = [IDS[0, :5], IDS[1, :3], IDS[2, :5]]
    rows = [(text, k) for text in texts for k in range(3)]
    ids = np.zeros((len(rows), 5), int)
    mask = np.zeros_like(ids)
    for row, (text, _) in enumerate(rows):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    x = {"token_ids": ids, "padding_mask": mask, "task_ids": [k for _, k in rows]}
    found = model.score(x, candidates)
    for row, (text, k) in enumerate(rows):
        for c, tokens in enumerate(candidates):
            with torch.no_grad():
                whole = np.concatenate([text, tokens])
                logits = logits_of(base, prompt_of(model, k), whole, len(text), torch.float64)
            log_p = torch.log_softmax(logits, dim=-1).numpy()
            expected = sum(log_p[len(text) - 1 + i, token] for i, token in enumerate(tokens))
            np.testing.assert_allclose(found[row, c], expected, rtol=1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_tokens_of_rows_of_several_lengths(both, use_cache):
    base, model = both
    model.compile(sampler="greedy")
    new, lengths = 4, [5, 3, 7, 3]
    mask = (np.arange(7) < np.array(lengths)[:, None]).astype(int)
    x = {"token_ids": IDS * mask, "padding_mask": mask}
    x = {name: np.pad(value, [(0, 0), (0, new)]) for name, value in x.items()}
    made = model.generate(x, task_ids=TASKS, stop_token_ids=None, use_cache=use_cache)["token_ids"]
    for b, length in enumerate(lengths):
        tokens = list(IDS[b, :length])
        for _ in range(new):
            with torch.no_grad():
                logits = logits_of(base, prompt_of(model, TASKS[b]), tokens, length)
            tokens.append(int(logits[-1].argmax()))
        np.testing.assert_array_equal(made[b, : length + new], tokens)
