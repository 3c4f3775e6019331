"""Labels that are the input itself train a language model to copy it: a warning says so."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mpt.fitting.unshifted import is_the_input
from tests.decoding.language_models import inputs, make
from tests.marks import only_torch

IDS = np.array([[5, 6, 7, 8, 0, 0], [4, 3, 9, 4, 2, 0]])
MASK = (IDS != 0).astype(int)
SHIFTED = np.roll(IDS, -1, axis=1)


def warned(act):
    """How often something warns of copies."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return sum("trains the model to copy its input" in str(w.message) for w in caught)


def batch(y, **changes):
    return {"token_ids": IDS, "padding_mask": MASK, "task_ids": np.array([0, 1]), **changes}, y


STREAMS = {
    "arrays": lambda x, y: (x, y),
    "generator": lambda x, y: (iter([(x, y), (x, y)]),),
    "tf.data": lambda x, y: (tf.data.Dataset.from_tensors((x, y)),),
}


@only_torch
@pytest.mark.parametrize("kind", STREAMS)
def test_labels_that_are_the_input_are_warned_of_once(kind):
    model = make("gpt2")
    assert not warned(lambda: model.fit(*STREAMS[kind](*batch(SHIFTED)), verbose=0))
    assert warned(lambda: model.fit(*STREAMS[kind](*batch(IDS)), verbose=0)) == 1
    assert not warned(lambda: model.fit(*STREAMS[kind](*batch(IDS)), verbose=0))


@only_torch
def test_labels_of_an_encoder_decoder():
    model = make("bart")
    x = {**inputs("bart"), "task_ids": np.array([0, 1])}
    ids = x["decoder_token_ids"]
    assert not warned(lambda: model.fit(x, np.roll(ids, -1, axis=1), verbose=0))
    assert warned(lambda: model.evaluate(x, ids, verbose=0)) == 1


@only_torch
def test_padding_and_ignored_labels_do_not_count():
    model = make("gpt2")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    model.compile(loss=loss)
    y = np.where(MASK == 1, IDS, -100)
    y[0, :2] = -100
    assert warned(lambda: model.fit(*batch(y), verbose=0)) == 1


def test_what_is_the_input():
    mask, ones = MASK == 1, np.ones((2, 4), int)
    assert is_the_input(IDS, IDS, mask)
    assert is_the_input(np.where(mask, IDS, 11), IDS, mask)
    other = IDS.copy()
    other[1, 2] += 1
    assert not is_the_input(other, IDS, mask)
    assert not is_the_input(SHIFTED, IDS, mask)
    # Right as next tokens too, so it says nothing.
    assert not is_the_input(ones, ones, ones == 1)
    assert not is_the_input(IDS, IDS, np.zeros_like(mask))
    assert not is_the_input(IDS[:, :3], IDS, mask[:, :3])
    # Targets of another kind: a distribution per token.
    assert not is_the_input(np.ones((2, 6, 9)), IDS, np.ones((2, 6, 9), bool))
