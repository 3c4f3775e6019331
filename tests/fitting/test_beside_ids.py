"""What comes beside token ids: masks of 1 and 0, segments and positions that there are."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.decoding import language_models
from tests.marks import only_torch

MULTITASK = {"num_virtual_tokens": 3, "num_tasks": 2}


@pytest.fixture(scope="module")
def classifier():
    """BERT with four segments."""
    backbone = tiny.backbone("bert", num_segments=4)
    return keras_mpt.prompt_tune(
        backbone,
        keras_mpt.MultitaskPromptTuningConfig(task_type="SEQ_CLS", **MULTITASK),
        num_classes=[2, 3],
    )


def rows(model, **changes):
    return {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 1, 0]), **changes}


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan, np.inf])
def test_a_mask_is_of_1_and_0(classifier, value):
    mask = tiny.inputs(classifier.backbone)["padding_mask"].astype("float32")
    mask[2, 3] = value
    with pytest.raises(ValueError, match=r"`padding_mask` should be 1 \(or True\) at tokens and 0"):
        classifier(rows(classifier, padding_mask=mask))
    with pytest.raises(ValueError, match=r"Received: padding_mask with \["):
        classifier(rows(classifier, padding_mask=ops.convert_to_tensor(mask)))


def test_masks_of_other_dtypes_are_the_same(classifier):
    x = rows(classifier)
    wanted = ops.convert_to_numpy(classifier(x))
    for dtype in ("bool", "float32"):
        found = classifier({**x, "padding_mask": x["padding_mask"].astype(dtype)})
        np.testing.assert_array_equal(ops.convert_to_numpy(found), wanted)


@pytest.mark.parametrize("value", [4, -1, 0.5, np.nan])
def test_segments_are_the_backbone_s(classifier, value):
    segments = np.zeros((4, 6), "float32")
    segments[1, 1] = 3
    assert np.isfinite(
        ops.convert_to_numpy(classifier(rows(classifier, segment_ids=segments)))
    ).all()
    segments[2, 2] = value
    words = r"`segment_ids` should have ids in \[0, 4\): the backbone has 4 of them. Received: "
    with pytest.raises(ValueError, match=words + r"segment_ids with \["):
        classifier(rows(classifier, segment_ids=segments))
    with pytest.raises(ValueError, match=words):
        classifier.predict(rows(classifier, segment_ids=segments), verbose=0)
    with pytest.raises(ValueError, match=words):
        classifier.fit(rows(classifier, segment_ids=segments), np.zeros(4, int), verbose=0)


@only_torch
@pytest.mark.parametrize("name", ["encoder_padding_mask", "decoder_padding_mask"])
@pytest.mark.parametrize("method", ["call", "fit", "generate", "score", "predict_labels"])
def test_both_masks_of_an_encoder_decoder(name, method):
    model = language_models.make("bart")
    x = {**language_models.inputs("bart"), "task_ids": [0, 1]}
    x[name] = x[name] * 2
    act = {
        "call": lambda: model(x),
        "fit": lambda: model.fit(x, np.ones((2, 8), int), verbose=0),
        "generate": lambda: model.generate(x, stop_token_ids=None),
        "score": lambda: model.score(x, [[3]]),
        "predict_labels": lambda: model.predict_labels(x, [[3], [4]]),
    }[method]
    with pytest.raises(ValueError, match=rf"`{name}` should be 1 .*{name} with \[2\]"):
        act()


@only_torch
def test_positions_leave_room_for_the_prompt():
    """The backbone's own table of positions, and the prompt's that come before the user's."""
    names = ("token_ids", "padding_mask", "position_ids")
    ids, mask, positions = (keras.Input((None,), dtype="int32", name=n) for n in names)
    x = keras.layers.Embedding(10, 4)(ids) + keras.layers.Embedding(12, 4)(positions)
    x = x * ops.cast(mask, "float32")[..., None]
    backbone = keras.Model(dict(zip(names, (ids, mask, positions), strict=True)), x)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3, prompt_position="before")
    model = keras_mpt.models.PromptTunedBackbone(backbone, config)
    x = {"token_ids": np.ones((1, 4), int), "padding_mask": np.ones((1, 4), int)}
    at = np.arange(4)[None]
    assert model({**x, "position_ids": at + 5}).shape == (1, 4, 4)
    words = (
        r"`position_ids` should have ids in \[0, 9\): the backbone has 12 of them and the prompt"
    )
    with pytest.raises(ValueError, match=words + r" takes 3\. Received: position_ids with \[9\]"):
        model({**x, "position_ids": at + 6})
    with pytest.raises(ValueError, match=words):
        model({**x, "position_ids": at - 1})
