"""Logits where targets count, against the same model's logits everywhere and against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.fitting import target_positions
from tests import tiny
from tests.marks import IS_EAGER, only_eager, only_torch, slow_on_jax

NAMES, ROWS, LENGTH = ["tone", "topic"], 8, 12
BACKEND = keras.backend.backend()
# A prompt that runs once per task, one in each row, and an encoder-decoder.
WAYS = {
    "prefix cache": ("llama", {}),
    "splice": ("llama", {"share_prompts": False}),
    "encoder-decoder": ("t5", {}),
}


def make(way="prefix cache"):
    """A language model of two tasks, always with the same weights."""
    kind, kwargs = WAYS[way]
    keras.utils.set_random_seed(0)
    given = {"dropout": 0.0} if kind == "t5" else {}
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM",
        num_virtual_tokens=2,
        num_tasks=2,
        task_names=NAMES,
    )
    # T5 does not divide its scores by √d: large weights would make much of a rounding.
    deviation = 0.15 if kind == "t5" else 0.3
    backbone = tiny.with_large_weights(tiny.backbone(kind, **given), deviation=deviation)
    return keras_mpt.prompt_tune(backbone, config, **kwargs)


def data(model, seed=0, most=3):
    """Rows with targets of which one to `most` count, by weights of all sizes."""
    rng = np.random.default_rng(seed)
    x = tiny.inputs(model.backbone, rows=ROWS, length=LENGTH, seed=seed)
    x["task_ids"] = np.resize([0, 1, 1, 0, 0], ROWS).astype("int32")
    y = rng.integers(0, tiny.VOCABULARY, (ROWS, LENGTH))
    weight = np.zeros((ROWS, LENGTH), "float32")
    for row in range(ROWS):
        at = rng.permutation(LENGTH)[: 1 + row % most]
        weight[row, at] = rng.uniform(0.5, 2.0, len(at))
    return x, y, weight


def loss_of(reduction, **kwargs):
    """Sparse cross-entropy of logits."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction, **kwargs
    )


def widths(model):
    """At how many positions each traced (on PyTorch: each) call gives logits, in a list."""
    found, call = [], model.call_with_states

    def noted(*args, **kwargs):
        outputs, states = call(*args, **kwargs)
        found.append(outputs.shape[1])
        return outputs, states

    model.call_with_states = noted
    return found


def trained(model, x, y=None, weight=None, **kwargs):
    """Histories, measures and weights after two epochs of two steps."""
    options = {"sample_weight": weight, "batch_size": ROWS // 2} if y is not None else {}
    history = model.fit(x, y, epochs=2, shuffle=False, verbose=0, **options, **kwargs).history
    found = model.evaluate(x, y, verbose=0, return_dict=True, **options)
    return history, found, [ops.convert_to_numpy(v) for v in model.trainable_variables]


def everywhere(model):
    """The same model, with logits at every position."""
    cls = type(model)
    model.__class__ = type(cls.__name__, (cls,), {"takes_positions": False})
    return model


def assert_alike(found, expected):
    """Histories and measures to rounding, and weights."""
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-6, atol=1e-7, err_msg=name)
    for ours, theirs in zip(found[2], expected[2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


REDUCTIONS = ["sum_over_batch_size", "mean_with_sample_weight", "sum", "mean"]
CASES = [(way, reduction) for way in WAYS for reduction in REDUCTIONS]
# On other backends what they compile otherwise: the division by all, and a loss over weights.
FEW = [CASES[0]] if BACKEND == "tensorflow" else [CASES[0], CASES[5]]


@pytest.mark.parametrize(("way", "reduction"), CASES if IS_EAGER else FEW)
def test_training_is_that_with_logits_everywhere(way, reduction):
    results = []
    for model in (make(way), everywhere(make(way))):
        model.compile(keras.optimizers.SGD(0.01), loss_of(reduction))
        seen = widths(model)
        results.append(trained(model, *data(model)))
        assert set(seen) == ({3} if len(results) == 1 else {LENGTH})
    assert_alike(*results)
    assert results[0][0]["loss"][1] != results[0][0]["loss"][0]


def in_numpy(logits, y):
    """Each target's loss, in float64, and whether it has the largest logit."""
    logits = logits.astype("float64")
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, y[..., None], -1)[..., 0], logits.argmax(axis=-1) == y


@slow_on_jax
def test_the_defaults_in_numpy():
    """The loss is the mean over the targets that count, by their weights; so is accuracy."""
    model = make()
    x, y, weight = data(model)
    logits = ops.convert_to_numpy(model(x))
    y[::2] = logits.argmax(axis=-1)[::2]  # Some are right.
    losses, right = in_numpy(logits, y)
    seen = widths(model)
    found = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert set(seen) == {3}
    for prefix, own in (("", x["task_ids"] >= 0), ("tone_", x["task_ids"] == 0)):
        w = weight[own]
        expected = {"loss": (w * losses[own]).sum(), "accuracy": (w * right[own]).sum()}
        for name, total in expected.items():
            np.testing.assert_allclose(found[prefix + name], total / w.sum(), rtol=1e-5)


@only_torch
def test_no_target_at_all_is_a_loss_of_zero():
    model = make()
    x, y, weight = data(model)
    assert model.evaluate(x, y, sample_weight=0 * weight, verbose=0)[0] == 0.0


class Batches(keras.utils.PyDataset):
    """The third batch has more targets that count than those that Keras looks at for shapes."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def as_generator(batches):
    yield from batches


def as_tf(batches):
    import tensorflow as tf

    columns = keras.tree.map_structure(lambda *v: np.concatenate(v), *batches)
    return tf.data.Dataset.from_tensor_slices(columns).batch(ROWS)


STREAMS = {"PyDataset": Batches, "generator": as_generator, "tf.data": as_tf}


@pytest.mark.parametrize("stream", STREAMS)
@slow_on_jax
def test_a_stream_s_batches_have_as_many_as_they_need(stream):
    model = make()
    model.compile(keras.optimizers.SGD(0.0), loss_of("sum_over_batch_size"))
    batches = [data(model, seed, most) for seed, most in enumerate((2, 2, 7, 1))]
    seen = widths(model)
    found = model.evaluate(STREAMS[stream](batches), verbose=0, return_dict=True)
    assert BACKEND == "tensorflow" or {2, 8, 1} <= set(seen)
    logits = np.concatenate([ops.convert_to_numpy(model(x)) for x, _, _ in batches])
    x, y, weight = keras.tree.map_structure(lambda *v: np.concatenate(v), *batches)
    losses, right = in_numpy(logits, y)
    for prefix, own in (("", x["task_ids"] >= 0), ("tone_", x["task_ids"] == 0)):
        expected = (weight[own] * losses[own]).mean()
        np.testing.assert_allclose(found[f"{prefix}loss"], expected, rtol=1e-5)
        expected = (weight[own] * right[own]).sum() / weight[own].sum()
        np.testing.assert_allclose(found[f"{prefix}accuracy"], expected, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras takes shapes of batches there alone")
def test_an_only_batch_that_has_more_targets_in_a_later_epoch():
    class Drawn(Batches):
        def __len__(self):
            return 1

        def on_epoch_end(self):
            self.batches = self.batches[::-1]

    model = make()
    model.compile(keras.optimizers.SGD(0.0))
    stream = Drawn([data(model, 0, 2), data(model, 0, 7)])
    losses = model.fit(stream, epochs=2, verbose=0).history["loss"]
    assert losses[0] != losses[1]


@only_torch
def test_how_many_positions_a_stream_has():
    model = make()
    batches = [data(model, seed, most) for seed, most in enumerate((2, 2, 7, 1))]
    seen = widths(model)
    model.fit(Batches(batches), verbose=0, shuffle=False)
    assert seen[-4:] == [2, 2, 8, 1]


def own_loss(y, y_pred):
    """Of a user's own: nobody knows that it is of each target by itself."""
    return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)


class OwnMetric(keras.metrics.Mean):
    """A metric of a user's own."""

    def update_state(self, y, y_pred, sample_weight=None):
        super().update_state(y_pred[:, -1])


NEED_ALL = {
    "a loss of one's own": {"loss": own_loss},
    "a metric over all targets": {"metrics": ["accuracy"]},
    "a metric of one's own": {"weighted_metrics": [OwnMetric()]},
    "a mean over what is not ignored": {"loss": loss_of("sum_over_batch_size", ignore_class=1)},
}


@only_torch
@pytest.mark.parametrize("case", NEED_ALL)
def test_what_may_need_all_logits_gets_them(case):
    model = make()
    model.compile(keras.optimizers.SGD(0.1), **NEED_ALL[case])
    x, y, weight = data(model)
    seen = widths(model)
    model.fit(x, y, sample_weight=weight, verbose=0)
    assert set(seen) == {LENGTH}


@only_torch
def test_a_subclass_that_measures_by_itself_gets_all_logits():
    class Own(keras_mpt.models.PromptTunedCausalLM):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            assert y_pred.shape[1] == LENGTH
            return super().compute_loss(x, y, y_pred, sample_weight, training)

    plain = make()
    model = Own(plain.backbone, plain.config)
    x, y, weight = data(model)
    model.fit(x, y, sample_weight=weight, verbose=0)


@only_torch
def test_targets_that_nearly_all_count_are_left_where_they_are():
    model = make()
    x, y, _ = data(model)
    most = (np.arange(LENGTH) > 1) * np.ones((ROWS, 1))
    seen = widths(model)
    for given in (most, np.ones((ROWS, LENGTH)), np.ones(ROWS), None):
        model.fit(x, y, sample_weight=given, verbose=0)
    assert set(seen) == {LENGTH}


@only_torch
def test_weights_of_another_length_are_an_error_still():
    model = make()
    x, y, weight = data(model)
    with pytest.raises(RuntimeError):
        model.fit(x, y, sample_weight=weight[:, 1:], verbose=0)


@only_torch
def test_nobody_gives_the_positions():
    model = make()
    x, y, weight = data(model)
    x["target_positions"] = target_positions.find(weight)
    for act in (lambda: model(x), lambda: model.fit(x, y, verbose=0)):
        with pytest.raises(ValueError, match=r"unknown \['target_positions'\]"):
            act()
    del x["target_positions"]
    assert "target_positions" not in model.prepared(x, y, weight)[0]


def test_positions_in_brute_force():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 5, 7, 20):
        weight = np.zeros((6, 20), "float32")
        for row in range(6):
            weight[row, rng.permutation(20)[: rng.integers(0, count + 1)]] = rng.normal()
        weight[3] = 0.0
        most = max(int((weight != 0).sum(axis=1).max()), 1)
        size = next(n for n in (1, 2, 3, 4, 6, 8, 12, 16, 20) if n >= most)
        expected = [[s for s in range(20) if row[s] != 0] for row in weight]
        expected = np.array([row + [-1] * (size - len(row)) for row in expected])
        found = target_positions.find(weight)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.asarray(target_positions.find_tf(weight)), expected)
        wider = target_positions.with_a_size_of_its_own(found, 20)
        assert wider.shape[1] not in (*target_positions._SIZES, 20)
        np.testing.assert_array_equal(wider[:, :size], expected)
        assert (wider[:, size:] == -1).all()


@only_eager
@pytest.mark.parametrize("prompt_positions", [False, True])
def test_distillation_compares_logits_where_targets_count(prompt_positions):
    results = []
    for change in (lambda model: model, everywhere):
        student = make()
        rng = np.random.default_rng(1)
        for variable in student.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        teachers = {name: student.fold(name) for name in NAMES}
        student.prompt.prefix_task_cols.assign(0.5 * student.prompt.prefix_task_cols)
        given = {"prompt_positions": prompt_positions}
        model = change(keras_mpt.Distillation(student, teachers, **given))
        model.compile(keras.optimizers.SGD(0.1))
        seen = widths(student)
        results.append(trained(model, *data(student)))
        assert set(seen) == ({3} if len(results) == 1 else {LENGTH})
    assert_alike(*results)
    assert results[0][0]["tone_logits_kl"][0] > 0


@only_torch
def test_the_report_computes_no_loss_again(monkeypatch):
    model, calls = make(), []
    cls = type(model.objective.goals[0].loss)
    call = cls.call
    monkeypatch.setattr(cls, "call", lambda *args: calls.append(0) or call(*args))
    x, y, weight = data(model)
    model.train_on_batch(x, y, weight)
    calls.clear()
    found = model.train_on_batch(x, y, weight, return_dict=True)
    assert len(calls) == 1
    assert {"loss", "tone_loss", "topic_loss"} <= set(found)
