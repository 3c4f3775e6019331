"""From text to labels in a SavedModel, with the preprocessor inside."""

import keras
import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.exporting.runtimes import without_keras

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "was", "good", "bad"]

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="no other graph can hold a tokenizer"
)


def test_text_to_labels_is_predict_labels(tmp_path):
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=3,
        num_tasks=2,
        task_names=["tone", "time"],
        label_names={"tone": ["bad", "good"]},
    )
    backbone = tiny.with_large_weights(tiny.backbone("bert"))
    model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3], preprocessor=preprocessor)
    model.export(tmp_path / "model", verbose=False, text_to_labels=True)
    texts, ids = ["it was good", "bad", "it was good", "good"], np.array([0, 1, 1, 7], "int32")
    batch = {"text": np.array(texts), "task_ids": ids}
    (found,) = without_keras(tmp_path / "model", [batch], "text_to_labels")
    labels, probabilities = model.predict_labels(
        {"text": texts[:3], "task_ids": ids[:3]}, return_probabilities=True
    )
    assert found["labels"].tolist() == [*map(str, labels), ""]
    assert found["classes"][3] == -1 and np.isnan(found["probabilities"][3]).all()
    np.testing.assert_allclose(found["probabilities"][:3], probabilities, atol=1e-5)
