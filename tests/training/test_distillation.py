import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_eager, slow_on_jax
from tests.training.setting import LENGTH, TASKS, Setting


def rows_of_tasks(setting):
    return [list(TASKS)[k] for k in setting.task_ids]


def kl(teacher, student, temperature=1.0):
    def log_softmax(x):
        x = x.astype("float64") / temperature
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p, q = log_softmax(teacher), log_softmax(student)
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1)


def teachers_logits(setting):
    """Of each row under its own teacher, one model at a time."""
    rows = [None] * len(setting.task_ids)
    for k, teacher in enumerate(setting.teachers.values()):
        logits = keras.ops.convert_to_numpy(teacher(setting.x))
        for row in np.flatnonzero(setting.task_ids == k):
            rows[row] = logits[row]
    return rows


def student_logits(setting):
    return keras.ops.convert_to_numpy(setting.student(setting.inputs))


def logs_of(setting, distillation, y, **kwargs):
    """What one step reports whose rate is 0."""
    distillation.compile(optimizer=keras.optimizers.SGD(0.0))
    return distillation.train_on_batch(setting.inputs, y, return_dict=True, **kwargs)


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        pytest.param("gpt2", marks=slow_on_jax),
        pytest.param("t5", marks=only_eager),
    ],
)
def test_the_whole_loss_is_numpys(kind):
    setting = Setting(kind)
    has_tokens = kind != "bert"
    mask_name = {"bert": "padding_mask", "gpt2": "padding_mask", "t5": "decoder_padding_mask"}[kind]
    mask = setting.x[mask_name].astype("float64")
    own, taught = student_logits(setting), teachers_logits(setting)
    terms = [kl(t, s[..., : t.shape[-1]], 2.0) for t, s in zip(taught, own, strict=True)]
    expected_kl = np.sum(terms * mask) / mask.sum() if has_tokens else np.mean(terms)
    states = setting.states(["student"] * 6), setting.states(rows_of_tasks(setting))
    squares = ((states[0] - states[1]) ** 2).mean(-1)
    squares = squares[:, 0 if kind == "t5" else LENGTH :]  # T5's decoder has no prompt here.
    expected_mse = ((squares * mask).sum(1) / mask.sum(1)).mean()

    distillation = keras_mpt.Distillation(
        setting.student, setting.teachers, logits_weight=0.5, hidden_weight=0.25, temperature=2.0
    )
    plain = setting.student.evaluate(setting.inputs, setting.y, return_dict=True, verbose=0)
    logs = logs_of(setting, distillation, setting.y)
    np.testing.assert_allclose(logs["logits_kl"], expected_kl, rtol=2e-5)
    np.testing.assert_allclose(logs["hidden_mse"], expected_mse, rtol=2e-5)
    expected = plain["loss"] + 0.5 * expected_kl + 0.25 * expected_mse
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    for k, name in enumerate(TASKS):
        own_rows = setting.task_ids == k
        per_row = ((squares * mask).sum(1) / mask.sum(1))[own_rows]
        np.testing.assert_allclose(logs[f"{name}_hidden_mse"], per_row.mean(), rtol=2e-5)
        own_terms = np.stack(terms)[own_rows]
        weights = mask[own_rows] if has_tokens else np.ones(own_rows.sum())
        expected = (own_terms * weights).sum() / weights.sum()
        np.testing.assert_allclose(logs[f"{name}_logits_kl"], expected, rtol=2e-5)


@only_eager
def test_the_hidden_term_may_be_the_paper_s_sum():
    setting = Setting()
    states = setting.states(["student"] * 6), setting.states(rows_of_tasks(setting))
    squares = ((states[0] - states[1]) ** 2).sum(-1)[:, LENGTH:] * setting.x["padding_mask"]
    given = {"logits_weight": 0, "hidden_weight": 0.1, "hidden_reduction": "sum"}
    distillation = keras_mpt.Distillation(setting.student, setting.teachers, **given)
    plain = setting.student.evaluate(setting.inputs, setting.y, return_dict=True, verbose=0)
    logs = logs_of(setting, distillation, setting.y)
    expected = squares.sum(1).mean()
    np.testing.assert_allclose(logs["hidden_mse"], expected, rtol=2e-5)
    np.testing.assert_allclose(logs["loss"], plain["loss"] + 0.1 * expected, rtol=2e-5)
    assert distillation.run_settings["settings"]["hidden_reduction"] == "sum"


@only_eager
def test_the_paper_s_sum_is_over_layers_too():
    setting = Setting()
    given = {"logits_weight": 0, "hidden_reduction": "sum"}
    found = [
        logs_of(
            setting,
            keras_mpt.Distillation(
                setting.student, setting.teachers, hidden_layers=layers, **given
            ),
            setting.y,
        )["hidden_mse"]
        for layers in (0, 1, [0, 1])
    ]
    np.testing.assert_allclose(found[2], found[0] + found[1], rtol=1e-5)


@only_eager
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_prompt_positions_count_where_they_are_asked_for(kind):
    setting = Setting(kind)
    mask = np.concatenate([np.ones((6, LENGTH)), setting.x["padding_mask"]], axis=1)
    states = setting.states(["student"] * 6), setting.states(rows_of_tasks(setting))
    squares = ((states[0] - states[1]) ** 2).mean(-1)
    expected = ((squares * mask).sum(1) / mask.sum(1)).mean()
    distillation = keras_mpt.Distillation(
        setting.student, setting.teachers, logits_weight=0, prompt_positions=True
    )
    logs = logs_of(setting, distillation, setting.y)
    assert "logits_kl" not in logs
    np.testing.assert_allclose(logs["hidden_mse"], expected, rtol=2e-5)


@pytest.mark.parametrize("pooling", ["base", "mean"])
def test_one_mixed_pass_gives_each_row_its_own_teachers_logits(pooling):
    setting = Setting("bert", pooling=pooling)
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    inputs = setting.student.prepared(setting.inputs)[0]
    found, _ = distillation.teachers.call_with_states(inputs, ())
    for row, expected in zip(
        keras.ops.convert_to_numpy(found), teachers_logits(setting), strict=True
    ):
        np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-6)
        assert np.all(row[len(expected) :] == -1e9)


@pytest.mark.parametrize(
    "kind, task_type",
    [
        ("bert", "TOKEN_CLS"),
        pytest.param("bert", "QUESTION_ANS", marks=only_eager),
        pytest.param("llama", None, marks=only_eager),
        pytest.param("bart", None, marks=only_eager),
    ],
)
def test_every_kind_of_model_comes_closer_to_its_teachers(kind, task_type):
    setting = Setting(kind, task_type)
    before = [keras.ops.convert_to_numpy(v) for v in setting.backbone.variables]
    taught = [
        m.prompt.get_peft_state_dict()["prompt_embeddings"] for m in setting.teachers.values()
    ]
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    distillation.compile(optimizer=keras.optimizers.Adam(0.05))
    history = distillation.fit(
        setting.inputs, setting.y, epochs=12, batch_size=6, verbose=0
    ).history
    assert history["hidden_mse"][-1] < 0.8 * history["hidden_mse"][0]
    assert history["loss"][-1] < history["loss"][0]
    for old, variable in zip(before, setting.backbone.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))
    for old, teacher in zip(taught, setting.teachers.values(), strict=True):
        np.testing.assert_array_equal(
            old, teacher.prompt.get_peft_state_dict()["prompt_embeddings"]
        )


@only_eager
def test_without_terms_it_is_the_students_own_training():
    weights = []
    for with_teachers in (False, True):
        keras.utils.set_random_seed(3)
        setting = Setting("bert")
        model = setting.student
        if with_teachers:
            given = setting.student, setting.teachers
            model = keras_mpt.Distillation(*given, logits_weight=0, hidden_weight=0)
        model.compile(optimizer=keras.optimizers.Adam(0.01))
        history = model.fit(setting.inputs, setting.y, batch_size=6, epochs=3, verbose=0).history
        assert not [name for name in history if name.endswith(("kl", "mse"))]
        weights.append([keras.ops.convert_to_numpy(v) for v in setting.student.trainable_variables])
    for plain, taught in zip(*weights, strict=True):
        np.testing.assert_allclose(taught, plain, atol=1e-6)


def test_validation_data_are_the_students():
    setting = Setting("bert")
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    history = distillation.fit(
        setting.inputs, setting.y, validation_data=(setting.inputs, setting.y), verbose=0
    ).history
    assert "tone_logits_kl" in history
    assert "val_tone_loss" in history
    assert not [name for name in history if name.startswith("val") and "kl" in name]
    expected = setting.student.evaluate(setting.inputs, setting.y, return_dict=True, verbose=0)
    np.testing.assert_allclose(history["val_loss"][0], expected["loss"], rtol=1e-6)
    own, found = student_logits(setting), distillation.predict(setting.inputs, verbose=0)
    np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-6)


@only_eager
def test_rows_without_weight_teach_nothing():
    setting = Setting("bert")
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    weight = np.array([1, 0, 1, 0, 1, 0], "float32")
    logs = logs_of(setting, distillation, setting.y, sample_weight=weight)
    own, taught = student_logits(setting), teachers_logits(setting)
    terms = [kl(t, s[: len(t)]) for t, s in zip(taught, own, strict=True)]
    np.testing.assert_allclose(logs["logits_kl"], np.mean(terms[::2]), rtol=2e-5)


@only_eager
def test_weights_per_token_count_for_their_row_where_a_row_has_one_distance():
    """As a preprocessor makes them of weights per row."""
    setting = Setting("gpt2")
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    per_row = np.array([2, 0, 1, 0, 1, 0], "float32")
    per_token = per_row[:, None] * setting.x["padding_mask"]
    found = [
        logs_of(setting, distillation, setting.y, sample_weight=weight)
        for weight in (per_row, per_token, None)
    ]
    np.testing.assert_allclose(found[1]["hidden_mse"], found[0]["hidden_mse"], rtol=1e-6)
    assert abs(found[2]["hidden_mse"] / found[0]["hidden_mse"] - 1) > 0.01


def test_layers_states_are_the_layers_outputs():
    setting = Setting("bert")
    states = setting.student.splice.hidden_states
    assert len(states) == 2
    layer, x = setting.backbone.transformer_layers[0], setting.x
    prompts = np.stack([setting.prompt_ids["student"]] * 6).astype("int32")
    front = {
        "token_ids": prompts,
        "padding_mask": np.ones_like(prompts),
        "segment_ids": 0 * prompts,
    }
    longer = {k: np.concatenate([front[k], v], 1) for k, v in x.items()}
    probe = keras.Model(setting.backbone.inputs, layer.output)
    expected = keras.ops.convert_to_numpy(probe([longer[t.name] for t in setting.backbone.inputs]))
    inputs = setting.student.prepared(setting.inputs)[0]
    _, (found, last) = setting.student.call_with_states(inputs, (0, -1))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected[:, LENGTH:], atol=1e-6)
    expected = setting.states(["student"] * 6)[:, LENGTH:]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(last), expected, atol=1e-6)


@slow_on_jax
def test_shared_prompts_give_the_same_states_as_the_splice():
    setting = Setting("gpt2")
    inputs = setting.student.prepared(setting.inputs)[0]
    found = []
    for share in (True, False):
        setting.student.share_prompts = share
        logits, states = setting.student.call_with_states(inputs, (0, 1))
        found.append([keras.ops.convert_to_numpy(s) for s in (logits, *states)])
    mask = setting.x["padding_mask"].astype(bool)
    for shared, spliced in zip(*found, strict=True):
        np.testing.assert_allclose(shared[mask], spliced[mask], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"temperature": 0}, "`temperature` should be a number above 0. Received: temperature=0"),
        ({"temperature": -1.0}, "`temperature` should be a number above 0"),
        ({"logits_weight": -0.1}, "`logits_weight` should be a number at least 0"),
        ({"hidden_weight": float("nan")}, "`hidden_weight` should be a number at least 0"),
        ({"hidden_layers": 2}, r"`hidden_layers` should be one or several ints in \[-2, 2\)"),
        ({"hidden_layers": []}, "`hidden_layers` should be one or several ints"),
        ({"hidden_reduction": "max"}, "`hidden_reduction` should be 'mean' or 'sum'. Received"),
    ],
)
def test_bad_numbers(arguments, message):
    setting = Setting("bert")
    with pytest.raises(ValueError, match=message):
        keras_mpt.Distillation(setting.student, setting.teachers, **arguments)


def test_bad_teachers():
    setting = Setting("bert")
    student, teachers = setting.student, setting.teachers
    tone, topic = teachers.values()
    other = Setting("bert", seed=1)
    wrong = {
        "Received: none for \\['topic'\\]": {"tone": tone},
        "a teacher with 3 classes, not 2": {"tone": topic, "topic": topic},
        "a teacher with another backbone": {"tone": other.teachers["tone"], "topic": topic},
        "with one ordinary prompt": {"tone": student, "topic": topic},
        "`teachers` should be a directory, or a dict": 3,
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            keras_mpt.Distillation(student, given)
    with pytest.raises(ValueError, match="`student` should be a prompt-tuned model with a Multi"):
        keras_mpt.Distillation(tone, teachers)


def test_the_student_is_what_is_saved(tmp_path):
    setting = Setting("bert")
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    with pytest.raises(ValueError, match="The student should be saved"):
        distillation.save(tmp_path / "m.keras")


class Interrupted(RuntimeError):
    """In the place of a power cut."""


@only_eager
def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise Interrupted

    def run(directory, *callbacks, **kwargs):
        keras.utils.set_random_seed(0)
        setting = Setting("bert")
        mix = keras_mpt.TaskMix(setting.datasets(), batch_size=4, steps=3)
        distillation = keras_mpt.Distillation(setting.student, setting.teachers, **kwargs)
        distillation.compile(optimizer=keras_mpt.two_speed_optimizer())
        resume = keras_mpt.ResumeTraining(directory, mix, save_freq=1)
        given = {"epochs": 2, "callbacks": [*callbacks, resume], "verbose": 0}
        history = distillation.fit(mix, **given).history
        return history, [keras.ops.convert_to_numpy(v) for v in distillation.trainable_variables]

    unbroken, expected = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", Stop())
    with pytest.raises(ValueError, match="settings.temperature is 1.0 there, 2.0 here"):
        run(tmp_path / "parts", temperature=2.0)
    history, found = run(tmp_path / "parts")
    assert history == unbroken
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_thawing_leaves_teachers_and_backbone_frozen():
    setting = Setting("bert")
    distillation = keras_mpt.Distillation(setting.student, setting.teachers)
    trained = distillation.trainable_variables
    for flag in (False, True):
        distillation.trainable = flag
        left = distillation.trainable_variables
        assert [id(v) for v in left] == [id(v) for v in trained if flag]


@only_eager
def test_a_score_s_teacher_teaches_its_score():
    """A softmax over one output is always 1: it would teach nothing."""
    backbone, counts = tiny.backbone("plain"), {"nli": 3, "score": 1}
    shared = {"task_type": "SEQ_CLS", "num_virtual_tokens": 2}
    one = keras_mpt.PromptTuningConfig(**shared)
    teachers = {
        name: keras_mpt.prompt_tune(backbone, one, num_classes=n) for name, n in counts.items()
    }
    config = keras_mpt.MultitaskPromptTuningConfig(num_tasks=2, task_names=list(counts), **shared)
    student = keras_mpt.prompt_tune(backbone, config, num_classes=counts)
    for k, model in enumerate([*teachers.values(), student]):
        for variable in model.trainable_variables:
            variable.assign(np.random.default_rng(k).normal(size=variable.shape))
    x, task_ids = tiny.inputs(backbone, rows=4), np.array([0, 1, 1, 0])
    inputs = {**x, "task_ids": task_ids}
    own = keras.ops.convert_to_numpy(student(inputs)).astype("float64")
    taught = [keras.ops.convert_to_numpy(teacher(x)) for teacher in teachers.values()]
    distillation = keras_mpt.Distillation(student, teachers, hidden_weight=0)
    distillation.compile(optimizer=keras.optimizers.SGD(0.0))
    y = np.array([0, 2.5, 1, 2])
    logs = distillation.train_on_batch(inputs, y, return_dict=True)
    is_score = task_ids == 1
    squares = (taught[1][is_score, 0] - own[is_score, 0]) ** 2
    np.testing.assert_allclose(logs["score_logits_kl"], squares.mean(), rtol=1e-5)
    expected = kl(taught[0][~is_score], own[~is_score]).mean()
    np.testing.assert_allclose(logs["nli_logits_kl"], expected, rtol=1e-4)
