"""Tasks that are added, removed and renamed: what changes, and that nothing else does."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.heads import task_heads
from tests import tiny
from tests.marks import only_torch
from tests.models.classifiers import (
    NAMES,
    assert_unchanged,
    config,
    make,
    predict,
    randomized,
    state,
)


@pytest.fixture(scope="module")
def story():
    """A classifier trained, grown, trained on, renamed and shrunk, with what was seen each time."""
    keras.utils.set_random_seed(0)
    model = make(task_names=None)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), loss, metrics=metrics)
    x = {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 1, 0])}
    y = np.array([1, 2, 0, 0])
    model.fit(x, y, verbose=0)
    model.optimizer.learning_rate = 0.25
    seen = {"model": model, "loss": loss}
    seen["backbone"] = [ops.convert_to_numpy(v) for v in model.backbone.weights]
    seen["paths"] = [v.path for v in model.weights]
    seen["first"] = predict(model, "task_0", "task_1")

    seen["id"] = model.add_task("c", num_classes=5)
    seen["optimizer"] = model.optimizer
    seen["fresh"] = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    seen["grown"] = predict(model, "task_0", "task_1", "c")
    seen["grown paths"] = [v.path for v in model.weights]

    x["task_ids"] = np.array([2, 1, 0, 2])
    c_before = ops.convert_to_numpy(model.prompt([2]))
    seen["log"] = model.fit(x, np.array([4, 2, 0, 0]), epochs=3, verbose=0).history
    seen["c moved"] = np.abs(ops.convert_to_numpy(model.prompt([2])) - c_before).max()

    seen["trained"] = predict(model, "task_0", "task_1", "c")
    seen["momenta"] = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    model.rename_task("c", "topic")
    seen["renamed"] = model.optimizer
    seen["renamed momenta"] = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    model.remove_task("task_0")
    seen["shrunk"] = predict(model, "task_1", "topic")
    return seen


def test_old_tasks_keep_their_bits_when_one_is_added(story):
    for name, before in story["first"].items():
        np.testing.assert_array_equal(story["grown"][name][:, :3], before)
        assert (story["grown"][name][:, 3:] == -1e9).all()
    assert story["grown"]["c"].shape == (4, 5)
    assert story["id"] == 2


def test_the_others_keep_their_bits_when_one_is_removed(story):
    np.testing.assert_array_equal(story["shrunk"]["task_1"], story["trained"]["task_1"])
    np.testing.assert_array_equal(story["shrunk"]["topic"], story["trained"]["c"])
    assert not np.array_equal(story["shrunk"]["task_1"], story["trained"]["task_0"])


def test_default_names_become_real_ones(story):
    assert story["model"].config.task_names == ["task_1", "topic"]
    assert story["model"].config.num_tasks == 2
    assert story["model"].num_classes == [3, 5]


def test_the_backbone_is_untouched(story):
    assert len(story["backbone"]) > 5
    for variable, before in zip(story["model"].backbone.weights, story["backbone"], strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), before)


def test_the_optimizer_is_fresh_and_the_settings_stay(story):
    optimizer = story["optimizer"]
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert optimizer.momentum == 0.9
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == 0.25
    iterations, rate, *momenta = story["fresh"]
    assert iterations == 0
    assert rate == 0.25
    assert [m.shape for m in momenta] == [(3, 16), (3, 3, 2), (3, 2, 16), (16, 10), (10,)]
    assert not any(m.any() for m in momenta)
    assert story["model"].loss is story["loss"]
    assert story["c moved"] > 1e-3


def test_logs_follow_the_names(story):
    tasks = ("task_0", "task_1", "c")
    wanted = {"loss", "accuracy", *(f"{t}_{m}" for t in tasks for m in ("loss", "accuracy"))}
    assert set(story["log"]) == wanted
    assert story["log"]["c_loss"][-1] < story["log"]["c_loss"][0]
    names = [metric.name for metric in story["model"].metrics]
    assert names[-4:] == ["task_1_loss", "task_1_accuracy", "topic_loss", "topic_accuracy"]


def test_a_renamed_task_keeps_the_optimizer_and_its_state(story):
    assert story["renamed"] is story["optimizer"]
    assert story["momenta"][0] == 3
    for before, after in zip(story["momenta"], story["renamed momenta"], strict=True):
        np.testing.assert_array_equal(before, after)


def test_each_variable_is_listed_once_in_the_old_order(story):
    model = story["model"]
    assert story["paths"] == story["grown paths"] == [v.path for v in model.weights]
    for variables in (model.weights, model.variables):
        assert len({id(v) for v in variables}) == len(variables)
    prompt, head = model.prompt, model.logits
    factors = [prompt.prompt_embeddings, prompt.prefix_task_cols, prompt.prefix_task_rows]
    trained = [*factors, head.kernel, head.bias]
    assert all(a is b for a, b in zip(model.trainable_variables, trained, strict=True))
    assert [tuple(v.shape) for v in trained] == [(3, 16), (2, 3, 2), (2, 2, 16), (16, 8), (8,)]
    assert model.parameter_count() == sum(int(np.prod(v.shape)) for v in trained)
    if keras.backend.backend() == "torch":
        assert {id(p) for p in model.parameters()} >= {id(v.value) for v in trained}
        assert len(list(model.parameters())) == len(model.variables)


@pytest.mark.parametrize("kind", ["shared head", "heads of tokens", "backbone"])
def test_no_kind_of_model_changes_its_old_tasks(kind):
    model = make(kind)
    before = predict(model, *NAMES)
    model.add_task("c", num_classes=4 if kind == "heads of tokens" else None)
    after = predict(model, *NAMES, "c")
    for name in NAMES:
        width = before[name].shape[-1]
        np.testing.assert_array_equal(after[name][..., :width], before[name])
    assert not np.array_equal(after["c"][..., :width], before["a"])


def test_a_head_s_logits_do_not_depend_on_the_other_heads():
    """The product with one wide matrix would: its last bits change with its width."""
    heads = keras_mpt.models.TaskHeads([2, 7])
    features = np.random.default_rng(0).normal(size=(4, 384)).astype("float32")
    ids = np.array([0, 1, 1, 0], "int32")
    before = ops.convert_to_numpy(heads(features, ids))
    heads.replace_tasks([0, 1, None], [2, 7, 20])
    after = ops.convert_to_numpy(heads(features, ids))
    np.testing.assert_array_equal(after[:, :7], before)


def test_each_start():
    model = make()
    old = model.prompt.get_peft_state_dict()
    cols, rows = old["prefix_task_cols"], old["prefix_task_rows"]
    model.add_task("average", num_classes=2)
    model.add_task("as b", from_="b", num_classes=2)
    model.add_task("as a", from_=0, num_classes=2)
    for start in (None, "shared"):
        model.add_task(f"alone {start}", from_=start, num_classes=2)
    new = model.prompt.get_peft_state_dict()
    np.testing.assert_array_equal(new["prompt_embeddings"], old["prompt_embeddings"])
    new_cols, new_rows = new["prefix_task_cols"], new["prefix_task_rows"]
    np.testing.assert_array_equal(new_cols[:2], cols)
    np.testing.assert_array_equal(new_rows[:2], rows)
    # The mean of the factors, as PEFT's; the mean of the prompts would be another.
    np.testing.assert_allclose(new_cols[2], (cols[0] + cols[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(new_rows[2], (rows[0] + rows[1]) / 2, rtol=1e-6)
    for task, source in ((3, 1), (4, 0)):
        np.testing.assert_array_equal(new_cols[task], cols[source])
        np.testing.assert_array_equal(new_rows[task], rows[source])
    for task in (5, 6):
        np.testing.assert_array_equal(new_cols[task] @ new_rows[task], np.ones((3, 16)))
    for prompt in ops.convert_to_numpy(model.prompt([5, 6])):
        np.testing.assert_array_equal(prompt, old["prompt_embeddings"])


def test_heads_are_copied_or_fresh():
    model = make()
    kernel, bias = (ops.convert_to_numpy(v) for v in model.logits.weights)
    model.add_task("copy", from_="b")
    model.add_task("fresh", from_="b", num_classes=3)
    assert model.num_classes == model.logits.num_classes == [2, 3, 3, 3]
    new_kernel, new_bias = (ops.convert_to_numpy(v) for v in model.logits.weights)
    np.testing.assert_array_equal(new_kernel[:, :5], kernel)
    np.testing.assert_array_equal(new_kernel[:, 5:8], kernel[:, 2:])
    np.testing.assert_array_equal(new_bias, [*bias, *bias[2:], 0, 0, 0])
    assert 0.01 < new_kernel[:, 8:].std() < 0.03


def test_a_task_named_average_is_a_source_by_its_id():
    model = make(task_names=["average", "b"])
    model.add_task("c", from_=0)
    cols = model.prompt.get_peft_state_dict()["prefix_task_cols"]
    np.testing.assert_array_equal(cols[2], cols[0])


def test_a_start_with_a_source_per_task_does_not_stand_in_the_way(tmp_path):
    model = make()
    model.save_adapter(tmp_path)
    exact = {
        "prompt_tuning_init": "EXACT_SOURCE_TASK",
        "prompt_tuning_init_task": [1, 0],
        "prompt_tuning_init_state_dict_path": tmp_path,
    }
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config(**exact))
    model.add_task("c")
    assert model.config.num_tasks == 3
    assert model.config.prompt_tuning_init == "RANDOM"


def test_an_optimizer_per_variable_finds_the_new_variables():
    model = make()
    optimizers = keras.optimizers
    of_factors = {"prompt/prefix_task_.*": optimizers.SGD(0.5, momentum=0.9)}
    by_path = optimizers.OptimizerMap(optimizers.SGD(0.1), of_factors)
    model.compile(optimizers.MultiOptimizer(by_path), model.loss)
    model.add_task("c", from_="a")
    fast, slow = model.optimizer.optimizers
    assert [tuple(v.shape) for v in fast.variables[2:]] == [(3, 3, 2), (3, 2, 16)]
    assert len(slow.variables) == 2
    assert [round(float(ops.convert_to_numpy(o.learning_rate)), 6) for o in (fast, slow)] == [
        0.5,
        0.1,
    ]


def test_a_language_model_keeps_its_sampler_and_compiles_generate_anew():
    model = keras_mpt.prompt_tune(tiny.backbone("gpt2"), config(task_type="CAUSAL_LM"))
    model.compile(sampler="greedy")
    x = {"token_ids": np.array([[5, 6, 0]]), "padding_mask": np.array([[1, 1, 0]])}
    for change in (lambda: model.add_task("c"), lambda: model.rename_task("c", "d")):
        sampler = model.sampler
        model.generate(x, task_ids=0, stop_token_ids=None)
        assert model.functions.count > 0
        change()
        assert model.functions.count == 0
        assert model.sampler is sampler


def test_a_renamed_task_keeps_the_scale_of_the_loss():
    """Keras wraps the optimizer in half precision; what it wraps is what `compile` was given."""
    model = make(dtype="mixed_float16")
    x = {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 1, 0])}
    model.fit(x, np.array([1, 2, 0, 0]), verbose=0)
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    optimizer.dynamic_scale.assign(64.0)
    model.rename_task("a", "c")
    assert model.optimizer is optimizer
    assert float(model.optimizer.dynamic_scale) == 64.0


def test_a_grown_model_is_saved_and_loaded_with_its_optimizer(tmp_path):
    backbone = tiny.backbone("roberta")
    model = randomized(
        keras_mpt.prompt_tune(backbone, config(task_type="SEQ_CLS"), num_classes=[2, 3])
    )
    model.add_task("c", num_classes=4)
    rng = np.random.default_rng(0)
    for variable in model.optimizer.variables[2:]:
        variable.assign(rng.normal(size=variable.shape))
    model.save(tmp_path / "grown.keras")
    loaded = keras.saving.load_model(tmp_path / "grown.keras")
    assert loaded.config == model.config
    assert loaded.num_classes == [2, 3, 4]
    for mine, theirs in (
        (model.weights, loaded.weights),
        (model.optimizer.variables, loaded.optimizer.variables),
    ):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


def test_adapters_before_and_after_growing(tmp_path):
    model = make()
    model.save_adapter(tmp_path / "before")
    model.add_task("c", num_classes=4)
    model.save_adapter(tmp_path / "after")
    loaded = keras_mpt.load_adapter(model.backbone, tmp_path / "after")
    assert loaded.config.task_names == ["a", "b", "c"]
    assert loaded.num_classes == [2, 3, 4]
    for mine, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*(ops.convert_to_numpy(v) for v in (mine, theirs)))
    config_, optimizer, _, weights = state(model)
    with pytest.raises(
        ValueError,
        match=r"`num_tasks` of the adapter should be the model's, 3; `keras_mpt.load_adapter.*` "
        r"builds a model that fits it. Received: num_tasks=2 in '.*before'",
    ):
        model.load_adapter(tmp_path / "before")
    assert_unchanged(model, (config_, optimizer, [2, 3, 4], weights))


@only_torch
def test_heads_are_drawn_for_new_tasks_alone(monkeypatch):
    """With 20,000 tasks, a draw for each would be what adding one costs."""
    drawn = []

    def initializer():
        drawn.append(1)
        return keras.initializers.TruncatedNormal(stddev=0.02)

    model = make("heads")
    monkeypatch.setattr(task_heads, "_kernel_initializer", initializer)
    before = ops.convert_to_numpy(model.logits.kernel)
    model.add_task("c", from_="a")
    model.remove_task("b")
    assert not drawn
    model.add_task("d", num_classes=4)
    assert len(drawn) == 1
    assert [model.logits.columns(k) for k in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 8)]
    after = ops.convert_to_numpy(model.logits.kernel)
    np.testing.assert_array_equal(after[:, :4], before[:, [0, 1, 0, 1]])
