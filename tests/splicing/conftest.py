"""Products of frozen weights by oneDNN, whatever their size and the processor."""

import pytest

from keras_mpt.splicing import frozen_products as products


@pytest.fixture
def made(monkeypatch):
    """Every size of product is oneDNN's, on each processor; the shapes of the products so far."""
    from keras_mpt.splicing import onednn

    if not onednn.is_available():
        pytest.skip("PyTorch is without oneDNN")
    shapes, multiplied = [], onednn._multiplied

    def noted(x, transposed):
        shapes.append((*x.shape, transposed.shape[0]))
        return multiplied(x, transposed)

    monkeypatch.setattr(products, "are_of_use", lambda: True)
    monkeypatch.setattr(onednn, "LEAST_MULTIPLICATIONS", 1)
    monkeypatch.setattr(onednn, "FEW_ROWS", 1)
    monkeypatch.setattr(onednn, "_multiplied", noted)
    return shapes
