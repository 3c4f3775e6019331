"""Each artifact, opened by its own runtime, computes what the model does."""

import json

import keras
import pytest

from keras_mpt.exporting.formats import FORMATS
from tests.exporting import cases
from tests.exporting.measure import TOLERANCE, formats_here, measure
from tools.serving import NUMBERS, PAGE
from tools.serving_page import render

BACKEND = keras.backend.backend()
WRITTEN = json.loads(NUMBERS.read_text())

# `make serving` measures all; each takes seconds to write.
OF_SLOW = {
    "tf_saved_model": ("causal LM (GPT-2)",),
    "litert": ("text classifier (BERT)",),
    "onnx": ("text classifier (RoBERTa), one prompt",),
    "openvino": ("token classifier (BERT)",),
    "torch": ("seq2seq LM (T5)",),
}


def measured_here():
    """The pairs of a case and a format that are measured in each run."""
    for name in cases.CASES:
        for format in formats_here():
            if name in OF_SLOW[format]:
                yield name, format


@pytest.mark.parametrize(("name", "format"), measured_here())
def test_an_artifact_computes_what_the_model_does(name, format, tmp_path):
    model = cases.make(name)
    found = measure(model, format, tmp_path, cases.inputs)
    assert found["error"] <= TOLERANCE
    assert found["open"] == WRITTEN["measured"][BACKEND][name][format]["open"]


def test_the_page_says_what_was_measured():
    assert PAGE.read_text() == render(WRITTEN)
    measured = WRITTEN["measured"]
    assert set(measured) == {"tensorflow", "jax", "torch"}
    for backend, rows in measured.items():
        assert list(rows) == list(cases.CASES)
        for by_format in rows.values():
            assert set(by_format) == {name for name, f in FORMATS.items() if backend in f.packages}
            assert all(found["error"] <= TOLERANCE for found in by_format.values())
