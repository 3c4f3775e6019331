"""A recipe gives `compile` and `fit` what they need, and trains as it says."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt import recipes
from tests.marks import IS_EAGER, only_eager, only_torch, slow_on_tensorflow
from tests.training import runs
from tests.training.setting import Setting
from tests.training.test_adapt import source_model
from tests.training.test_two_speed import apply_and_compare, make


class Steps(keras.callbacks.Callback):
    """Counts the steps of each `fit`, and notes their batches' sizes."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def on_train_begin(self, logs=None):
        """Another `fit`."""
        self.counts.append(0)

    def on_train_batch_end(self, batch, logs=None):
        """A step."""
        self.counts[-1] += 1


def rate_in_numpy(t, peak, steps, warmup, decay):
    """The rate of step t, in float64."""
    rise = min((t + 1) / max(warmup, 1), 1)
    part = min(max((t - warmup) / (steps - warmup), 0), 1)
    fall = {None: 1, "linear": 1 - part, "cosine": (1 + math.cos(math.pi * part)) / 2}[decay]
    return peak * rise * fall


@pytest.mark.parametrize("decay", [None, "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_rates_rise_and_fall_as_in_numpy(decay, warmup):
    schedule = recipes.WarmupDecay(0.2, 10, warmup, decay)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    wanted = [rate_in_numpy(t, 0.2, 10, warmup, decay) for t in range(13)]
    for rate in (schedule, again):
        found = [float(ops.convert_to_numpy(rate(ops.convert_to_tensor(t)))) for t in range(13)]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert found[warmup] == pytest.approx(0.2)
    if decay:
        assert found[10:] == [0, 0, 0]


def test_each_group_has_its_rate_s_course():
    model = make()
    recipe = recipes.Recipe(steps=4, shared=0.1, factors=0.2, head=0.3, warmup=0.5)
    course = [0.5, 1.0, 1.0]
    rates = [[peak * part for part in course] for peak in (0.1, 0.2, 0.3)]
    apply_and_compare(model, recipe.compile_arguments(model)["optimizer"], rates)


@only_torch
def test_a_recipe_without_steps_is_two_speed_optimizer_s():
    model = make()
    optimizer = recipes.Recipe().compile_arguments(model)["optimizer"]
    apply_and_compare(model, optimizer, [[0.01] * 3, [0.1] * 3, [0.01] * 3])


@only_torch
def test_the_paper_s_rate_of_p_is_a_share_of_its_size():
    model = make()
    shared = np.random.default_rng(0).normal(0, 5, model.prompt.prompt_embeddings.shape)
    model.prompt.prompt_embeddings.assign(shared.astype("float32"))
    size = np.sqrt(np.mean(np.square(shared)))
    for stage, factors in (("sources", 0.03), ("target", 0.04)):
        recipe = recipes.paper(steps=100, stage=stage)
        optimizers = recipe.compile_arguments(model)["optimizer"].optimizers
        courses = [o.get_config()["learning_rate"]["config"] for o in optimizers]
        peaks = [course["peak"] for course in courses]
        np.testing.assert_allclose(peaks, [0.03 * size, factors, 0.01], rtol=1e-6)
        assert {(c["steps"], c["warmup_steps"], c["decay"]) for c in courses} == {
            (100, 5, "linear")
        }
        assert [o.global_clipnorm for o in optimizers] == [1.0] * 3


@only_torch
def test_a_rate_of_0_leaves_p_to_the_bit():
    model = make()
    recipe = recipes.few_shot(steps=4, shared=0.0)
    assert type(recipe.compile_arguments(model)["optimizer"].optimizers[0]).__name__ == "SGD"


@only_torch
def test_the_arguments_of_fit_by_hand():
    recipe = recipes.Recipe(steps=7, batch_size=4, validations=2, stop_loss=0.1)
    x = {"task_ids": "tone", "text": ["a"] * 10}
    found = recipe.fit_arguments(x)
    limit, stop = found.pop("callbacks")
    assert found == {"epochs": 3, "batch_size": 4}
    assert (limit.steps, stop.loss) == (7, 0.1)
    assert recipe.fit_arguments(["a"] * 10)["epochs"] == 3
    assert recipe.fit_arguments({"text": (["a"] * 10, ["b"] * 10)})["epochs"] == 3
    found = recipe.fit_arguments(x, validation_data=(x, [0] * 10))
    assert [type(c) for c in found["callbacks"]] == [recipes.StepLimit, recipes.BestWeights]
    assert found["validation_freq"] == [2, 3]
    mix = runs.make_mix(steps=7)
    assert recipe.fit_arguments(mix)["epochs"] == 1
    assert "batch_size" not in recipe.fit_arguments(mix)
    assert recipe.for_epochs(5, x).steps == 15
    many = dataclasses.replace(recipe, steps=100, validations=4, batch_size=10)
    assert many.fit_arguments(x, x)["validation_freq"] == [25, 50, 75, 100]
    assert "steps" not in recipes.Recipe().mix_arguments({"a": None})
    found = recipes.paper(steps=95).mix_arguments({"a": None, "b": None, "c": None})
    assert found == {
        "batch_size": 32,
        "weights": "proportional",
        "size_limit": 2**18,
        "max_tasks_per_batch": 3,
        "steps": 10,
    }


@only_torch
def test_a_recipe_trains_its_steps_and_keeps_the_loss_and_the_metrics():
    model = runs.make_model()
    whole = runs.make_mix(batch_size=22, steps=1)
    whole.on_epoch_begin()
    x, y = whole[0]
    recipe = recipes.Recipe(steps=5, batch_size=8)
    steps = Steps()
    history = recipe.fit(model, x, y, callbacks=[steps], verbose=0)
    assert steps.counts == [5] and history.epoch == [0, 1]
    assert {"loss", "accuracy", "top", "tone_top"} <= history.history.keys()
    assert [int(o.iterations) for o in model.optimizer.optimizers] == [5] * 3
    before = [ops.convert_to_numpy(v) + 0 for v in model.trainable_variables]
    model.fit(x, y, verbose=0)  # Its rates are 0 by now.
    for value, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def scores_of(history):
    """The mean over tasks of each epoch's validation accuracy."""
    logs = history.history
    return np.mean([logs["val_tone_accuracy"], logs["val_topic_accuracy"]], axis=0)


def run(directory, stop=0):
    """A run with validation and a state, cut after some steps, or whole."""
    model, mix = runs.make_model(), runs.make_mix()
    recipe = recipes.Recipe(steps=15, shared=0.3, factors=0.3, head=0.3, validations=3)
    cut = runs.Stop(stop, runs.interrupt)
    validation = runs.make_mix(seed=4, batch_size=22)[0]
    history = recipe.fit(
        model,
        mix,
        validation_data=validation,
        callbacks=[cut],
        resume=directory,
        save_freq=1,
        verbose=0,
    )
    return model, history, validation


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that nothing stopped."""
    return run(tmp_path_factory.mktemp("unbroken") / "run")


@slow_on_tensorflow
def test_a_training_ends_with_its_best_weights(unbroken):
    model, history, validation = unbroken
    scores = scores_of(history)
    assert len(scores) == 3
    if IS_EAGER:  # Each backend has its own dropout.
        assert scores[2] < scores.max()
    found = model.evaluate(*validation, return_dict=True, verbose=0)
    mean = (found["tone_accuracy"] + found["topic_accuracy"]) / 2
    assert mean == pytest.approx(scores.max())


@only_eager
def test_the_best_weights_of_before_an_interruption_come_back(unbroken, tmp_path):
    model, history, _ = unbroken
    scores = scores_of(history)
    with pytest.raises(runs.Interrupted):
        run(tmp_path / "parts", stop=13)
    parts, rest, _ = run(tmp_path / "parts")
    np.testing.assert_array_equal(scores_of(rest), scores)
    for a, b in zip(model.trainable_variables, parts.trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    # A finished run gives the same again.
    again, _, _ = run(tmp_path / "parts")
    for a, b in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


@only_torch
def test_a_finished_run_of_steps_that_fill_no_epoch_trains_no_more(tmp_path):
    found = []
    for _ in range(2):
        model, mix, steps = runs.make_model(), runs.make_mix(), Steps()
        recipe = recipes.Recipe(steps=7)
        history = recipe.fit(model, mix, callbacks=[steps], resume=tmp_path / "run", verbose=0)
        values = [ops.convert_to_numpy(v) for v in model.trainable_variables]
        found.append((steps.counts, history.epoch, values))
    assert [counts for counts, _, _ in found] == [[10], [0]]
    assert found[0][1] == found[1][1] == [0, 1]
    for a, b in zip(found[0][2], found[1][2], strict=True):
        np.testing.assert_array_equal(a, b)


@only_torch
def test_a_state_of_other_callbacks_is_refused(tmp_path):
    run(tmp_path / "run")
    mix = runs.make_mix()
    resume = keras_mpt.ResumeTraining(tmp_path / "run", mix)
    model = runs.make_model()
    recipe = recipes.Recipe(steps=15, shared=0.3, factors=0.3, head=0.3, validations=3)
    with pytest.raises(ValueError, match=r"`callbacks` should be those that the run in .* had"):
        recipe.fit(model, mix, callbacks=resume, verbose=0)  # One, as Keras takes it.
    with pytest.raises(ValueError, match=r"`callbacks` should be a list .* Received: \['Steps'\]"):
        keras_mpt.ResumeTraining(tmp_path / "run", mix, callbacks=[Steps()])


@only_eager
def test_a_student_with_teachers_is_trained_by_a_recipe():
    setting = Setting()
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    recipe = recipes.paper(steps=6, stage="sources", batch_size=4, validations=2)
    datasets = setting.datasets()
    mix = keras_mpt.TaskMix(datasets, **recipe.mix_arguments(datasets))
    size = np.sqrt(np.mean(ops.convert_to_numpy(setting.student.prompt.prompt_embeddings) ** 2))
    history = recipe.fit(distillation, mix, validation_data=(setting.inputs, setting.y), verbose=0)
    assert mix.steps == 3 and len(history.history["val_topic_accuracy"]) == 2
    for model in (distillation, setting.student):
        course = model.optimizer.optimizers[0].get_config()["learning_rate"]["config"]
        assert course["peak"] == pytest.approx(0.03 * size)
    assert int(distillation.optimizer.iterations) == 6
    scores = scores_of(history)
    found = setting.student.evaluate(setting.inputs, setting.y, return_dict=True, verbose=0)
    mean = (found["tone_accuracy"] + found["topic_accuracy"]) / 2
    assert mean == pytest.approx(scores.max())


@only_torch
def test_a_saved_model_keeps_its_rates(tmp_path):
    model = make()
    recipe = recipes.few_shot(steps=9, warmup=0.3, decay="cosine", global_clipnorm=0.5)
    model.compile(**recipe.compile_arguments(model))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    configs = [[o.get_config() for o in m.optimizer.optimizers] for m in (model, loaded)]
    assert configs[0] == configs[1]
    rate = configs[1][1]["learning_rate"]["config"]
    assert rate == {"peak": 0.1, "steps": 9, "warmup_steps": 3, "decay": "cosine"}


@only_torch
def test_adapt_compiles_by_the_recipe():
    source = source_model()
    model = keras_mpt.adapt(source, "a", num_classes=2, recipe=recipes.paper(steps=10))
    size = np.sqrt(np.mean(source.prompt.get_peft_state_dict()["prompt_embeddings"] ** 2))
    rates = [o.get_config()["learning_rate"] for o in model.optimizer.optimizers]
    assert rates[0]["config"]["peak"] == pytest.approx(0.03 * size)
    assert rates[1]["config"]["peak"] == 0.04
    plain = keras_mpt.adapt(source, "a", num_classes=2)
    rates = [float(o.learning_rate) for o in plain.optimizer.optimizers]
    np.testing.assert_allclose(rates, [0.01, 0.1, 0.01], rtol=1e-6)
    with pytest.raises(ValueError, match="`recipe` should be a keras_mpt.recipes.Recipe"):
        keras_mpt.adapt(source, "a", num_classes=2, recipe="paper")


@only_torch
@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({}, [5, 5]),
        ({"batch_size": 2}, [5, 5]),
        ({"batch_size": 2, "epochs": 2}, [4, 4]),
        ({"recipe": None}, [5, 5]),
        ({"recipe": None, "batch_size": 2, "epochs": 3}, [6, 6]),
        ({"recipe": recipes.Recipe(batch_size=2)}, [10, 10]),
    ],
)
def test_teachers_are_trained_by_the_recipe(given, counts, tmp_path):
    """Of three rows each."""
    setting, steps, rates = Setting(), Steps(), []

    class Rates(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            optimizer = self.model.optimizer
            rates.append(float(getattr(optimizer, "optimizers", [optimizer])[0].learning_rate))

    keras_mpt.train_teachers(
        setting.backbone,
        setting.datasets(),
        tmp_path,
        keras_mpt.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
        num_classes=[2, 3],
        callbacks=[steps, Rates()],
        verbose=0,
        **{"recipe": recipes.Recipe(steps=5, shared=0.02), **given},
    )
    assert steps.counts == counts
    first = {"recipe": 0.02, "none": 0.005, "other": 0.01}
    which = "recipe" if "recipe" not in given else "none" if given["recipe"] is None else "other"
    np.testing.assert_allclose(rates, [first[which]] * 2, rtol=1e-6)


@only_torch
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "`steps` should be a positive integer. Received: steps=0"),
        ({"batch_size": 1.5}, "`batch_size` should be a positive integer"),
        ({"factors": -1}, "`factors` should be a number at least 0. Received: factors=-1"),
        ({"warmup": 1}, "`warmup` should be a share of the steps, below 1. Received: warmup=1"),
        ({"decay": "step"}, "`decay` should be None, 'linear' or 'cosine'. Received"),
        ({"relative": 1}, "`relative` should be True or False. Received"),
        ({"global_clipnorm": 0}, "`global_clipnorm` should be a number above 0. Received"),
        ({"stop_loss": 0}, "`stop_loss` should be a number above 0. Received"),
        ({"metric": 3}, "`metric` should be the name of a metric, or a dict"),
        ({"prompt_tuning_init": "ZEROS"}, "`prompt_tuning_init` should be"),
        ({"weights": "sizes"}, "`weights` should be 'uniform', .* Received: weights='sizes'"),
        ({"weights": [1, 0]}, "`weights` should be 'uniform', .* Received"),
        ({"weights": []}, "`weights` should be 'uniform', .* Received"),
        ({"size_limit": 9}, "`size_limit` should be left out where `weights` do not follow"),
    ],
)
def test_what_no_recipe_can_be(given, message):
    with pytest.raises(ValueError, match=message):
        recipes.Recipe(**given)


@only_torch
def test_what_a_recipe_cannot_do():
    with pytest.raises(ValueError, match="`stage` should be 'sources' or 'target'. Received"):
        recipes.paper(stage="both")
    with pytest.raises(ValueError, match="`steps` should be given for a recipe that says how long"):
        recipes.Recipe().fit_arguments([1, 2])
    with pytest.raises(ValueError, match="`x` should be arrays, text or a stream of known length"):
        recipes.few_shot().fit_arguments(iter([1]))
    with pytest.raises(
        ValueError, match="`model` should be a prompt-tuned model or a Distillation"
    ):
        recipes.paper().compile_arguments(keras.Sequential())
    model = make()
    model.prompt.prompt_embeddings.assign(np.zeros(model.prompt.prompt_embeddings.shape))
    with pytest.raises(ValueError, match="`model` should have a prompt that is finite and not all"):
        recipes.paper().compile_arguments(model)
    with pytest.raises(ValueError, match="`warmup_steps` should be fewer than the 3 steps"):
        recipes.WarmupDecay(0.1, 3, 3)
