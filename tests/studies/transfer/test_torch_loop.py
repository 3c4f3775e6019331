"""The plain loop against Adam written out in float64."""

from types import SimpleNamespace

import numpy as np
import torch

from studies.transfer.torch_loop import as_bert, fit, mean_over_tokens


def test_rates_fall_to_nothing_in_a_line_for_every_group():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    y = rng.integers(0, 3, (3, 4))
    start = rng.normal(size=(2, 3)).astype("float32"), np.zeros(3, "float32")
    weight, bias = (torch.nn.Parameter(torch.tensor(value)) for value in start)
    batches = (({"x": rows}, labels) for rows, labels in zip(x, y, strict=True))
    fit(
        [([weight], 0.1), ([bias], 0.01)],
        lambda given: torch.as_tensor(given["x"]) @ weight + bias,
        batches,
        steps=3,
    )

    values = [value.astype("float64") for value in start]
    moments = [[np.zeros_like(v), np.zeros_like(v)] for v in values]
    for step in range(3):
        logits = x[step] @ values[0] + values[1]
        error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error[np.arange(4), y[step]] -= 1
        gradients = x[step].T @ error / 4, error.mean(0)
        for value, m, gradient, rate in zip(values, moments, gradients, (0.1, 0.01), strict=True):
            m[0] = 0.9 * m[0] + 0.1 * gradient
            m[1] = 0.999 * m[1] + 0.001 * gradient**2
            first, second = m[0] / (1 - 0.9 ** (step + 1)), m[1] / (1 - 0.999 ** (step + 1))
            value -= rate * (1 - step / 3) * first / (np.sqrt(second) + 1e-7)
    np.testing.assert_allclose(weight.detach().numpy(), values[0], atol=1e-5)
    np.testing.assert_allclose(bias.detach().numpy(), values[1], atol=1e-5)


def test_labels_may_weigh_unlike():
    logits = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]]))
    losses = []
    watch = SimpleNamespace(after_step=lambda step, mean: losses.append(mean))
    weights = np.array([1.0, 0.5, 0.25], "float32")
    fit([([logits], 0.1)], lambda x: x["at"] @ logits,
        [({"at": torch.eye(3)}, np.array([0, 0, 1]), weights)], steps=1, watch=watch)  # fmt: skip
    own = np.log([1 + np.exp(1.0), 1 + np.exp(-4.0), 1 + np.exp(0.5)])
    np.testing.assert_allclose(losses, [own @ weights / weights.sum()], rtol=1e-6)


def test_padding_is_left_out_of_the_mean():
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    mean = mean_over_tokens(tokens, torch.tensor([[1, 1, 0]]))
    np.testing.assert_array_equal(mean.numpy(), [[2.0, 3.0]])


def test_inputs_have_transformers_names():
    ids = np.array([[1, 2]], "int32")
    found = as_bert({"token_ids": ids, "padding_mask": ids, "segment_ids": ids})
    assert set(found) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {value.dtype for value in found.values()} == {torch.int64}
    assert set(as_bert({"token_ids": ids, "task_ids": ids[0]})) == {"input_ids", "task_ids"}
