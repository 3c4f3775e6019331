"""A family that keras-hub has not yet works by the rule: here is one, with its own ways."""

import keras
import keras_hub
from keras import ops

from tests.families.exact import is_exact
from tests.families.measure import measure

VOCABULARY, WIDTH = 50, 6


@keras.saving.register_keras_serializable(package="tests")
class ScaledEmbedding(keras.layers.Layer):
    """A table of its own, scaled: no class that the splice knows."""

    def build(self, shape):
        self.table = self.add_weight(shape=(VOCABULARY, WIDTH), name="table")

    def call(self, ids):
        return ops.take(self.table, ids, axis=0) * WIDTH**0.5

    def compute_output_shape(self, shape):
        return (*shape, WIDTH)


@keras.saving.register_keras_serializable(package="tests")
class Decay(keras.layers.Layer):
    """Mixes each token with those before it, the farther the less, by positions that are given."""

    def build(self, tokens_shape, positions_shape, seen_shape):
        self.rate = self.add_weight(shape=(WIDTH,), name="rate")

    def call(self, tokens, positions, seen):
        distance = ops.cast(positions[:, :, None] - positions[:, None], tokens.dtype)
        weights = ops.exp(-ops.abs(distance)) * ops.cast(distance >= 0, tokens.dtype)
        weights = weights * ops.cast(seen, tokens.dtype)[:, None]
        return tokens + ops.tanh(ops.matmul(weights, tokens) * self.rate)

    def compute_output_shape(self, tokens_shape, positions_shape, seen_shape):
        return tokens_shape


@keras.saving.register_keras_serializable(package="tests")
class TomorrowBackbone(keras_hub.models.Backbone):
    """Takes who speaks and where each token stands beside the ids; gives states and a summary."""

    def __init__(self, dtype=None, **kwargs):
        names = ("token_ids", "padding_mask", "speaker_ids", "position_ids")
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
        x = ScaledEmbedding(dtype=dtype)(inputs["token_ids"])
        x = x + keras.layers.Embedding(2, WIDTH, dtype=dtype)(inputs["speaker_ids"])
        x = Decay(dtype=dtype)(x, inputs["position_ids"], inputs["padding_mask"])
        outputs = {"states": x, "summary": keras.layers.Dense(4, dtype=dtype)(x[:, 0])}
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **kwargs)


def test_a_family_of_tomorrow_works_without_a_change_here(tmp_path):
    measured = measure(TomorrowBackbone(), tmp_path)
    assert is_exact(measured)
    assert (measured.kind, measured.token_dim, measured.tasks) == ("encoder", WIDTH, {})


def test_measuring_it_finds_positions_that_were_left_as_they_are(tmp_path, monkeypatch):
    # What Gemma 4 got from a splice that treated its positions as it treats segments.
    from keras_mpt.splicing import splice

    monkeypatch.setattr(
        splice,
        "insert_positions",
        lambda positions, length, at: splice.insert_constant(positions, 0, length, at),
    )
    measured = measure(TomorrowBackbone(), tmp_path)
    assert not is_exact(measured)
    assert measured.own_embeddings == 0 and measured.real_tokens > 0.01
