"""The linear probe against its own conditions and a closed form."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the head is fitted with it")

from studies.transfer.heads.methods.head import fit  # noqa: E402


def test_the_gradient_is_zero_at_the_fit():
    rng = np.random.default_rng(0)
    x, y, decay = rng.normal(size=(60, 5)), rng.integers(0, 3, 60), 0.05
    weights = fit(x, y, 3, decay)

    def loss(w):
        logits = x @ w[:-1] + w[-1]
        cross_entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), y]
        return cross_entropy.mean() + decay / 2 * (w[:-1] ** 2).sum()

    least = loss(weights)
    for place in np.ndindex(weights.shape):
        for change in (1e-3, -1e-3):
            moved = weights.copy()
            moved[place] += change
            assert loss(moved) > least - 1e-9


def test_without_features_the_bias_is_the_classes_log_shares():
    y = np.repeat([0, 1, 2], [5, 3, 2])
    bias = fit(np.zeros((10, 2)), y, 3, 0.1)[-1]
    shares = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=1e-4)
