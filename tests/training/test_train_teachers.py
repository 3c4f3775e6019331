import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_eager, only_torch, slow_on_jax
from tests.training.setting import LENGTH, TASKS, Setting


def config(**kwargs):
    given = {"task_type": "SEQ_CLS", "num_virtual_tokens": LENGTH, "seed": 0, **kwargs}
    return keras_mpt.PromptTuningConfig(**given)


def train(setting, directory, **kwargs):
    given = {
        "num_classes": TASKS,
        "epochs": 1,
        "verbose": 0,
        "seed": 5,
        "pooling": "mean",
        **kwargs,
    }
    datasets = given.pop("datasets", setting.datasets())
    return keras_mpt.train_teachers(
        setting.backbone, datasets, directory, given.pop("config", config()), **given
    )


def student(setting, length=LENGTH, **kwargs):
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=length, num_tasks=2, task_names=list(TASKS)
    )
    return keras_mpt.prompt_tune(
        setting.backbone, config, num_classes=[2, 3], pooling="mean", **kwargs
    )


@only_eager
def test_an_interrupted_call_goes_on_and_ends_the_same(tmp_path):
    setting = Setting("bert")
    whole = train(setting, tmp_path / "whole")

    class Interrupted(RuntimeError):
        pass

    class StopAtTheSecond(keras.callbacks.Callback):
        fits = 0

        def on_train_begin(self, logs=None):
            self.fits += 1
            if self.fits == 2:
                raise Interrupted

    with pytest.raises(Interrupted):
        train(setting, tmp_path / "parts", callbacks=[StopAtTheSecond()])
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["tone"]
    written = (tmp_path / "parts" / "tone" / "adapter_model.safetensors").stat().st_mtime_ns
    parts = train(setting, tmp_path / "parts")
    assert (parts["tone"] / "adapter_model.safetensors").stat().st_mtime_ns == written
    for name in TASKS:
        states = [keras_mpt.read_state_dict(where[name]) for where in (whole, parts)]
        for key in states[0]:
            np.testing.assert_array_equal(states[0][key], states[1][key])


@slow_on_jax
def test_a_teacher_comes_out_the_same_whatever_dropout_drew_before(tmp_path):
    """The tasks share a backbone, and with it the seeds of its dropouts."""
    setting = Setting("bert")
    setting.backbone = tiny.with_large_weights(tiny.backbone("bert", dropout=0.3))
    both = train(setting, tmp_path / "both")
    topic = {"topic": setting.datasets()["topic"]}
    alone = train(setting, tmp_path / "alone", datasets=topic)
    states = [keras_mpt.read_state_dict(where["topic"]) for where in (both, alone)]
    for key in states[0]:
        np.testing.assert_array_equal(states[0][key], states[1][key])
    other = train(setting, tmp_path / "other", datasets=topic, seed=6)
    key = "prompt_embeddings"
    assert np.abs(keras_mpt.read_state_dict(other["topic"])[key] - states[0][key]).max() > 0


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PEFT runs on PyTorch")
def test_teachers_open_in_peft_as_prompt_tuning(tmp_path):
    pytest.importorskip("peft")
    from peft import PeftConfig

    setting = Setting("bert")
    for directory in train(setting, tmp_path).values():
        assert PeftConfig.from_pretrained(str(directory)).peft_type == "PROMPT_TUNING"


@only_eager
def test_a_directory_of_teachers_teaches(tmp_path):
    setting = Setting("bert")
    train(setting, tmp_path)
    distillation = keras_mpt.Distillation(student(setting), tmp_path)
    mix = keras_mpt.TaskMix(setting.datasets(), batch_size=4)
    history = distillation.fit(mix, epochs=1, verbose=0).history
    assert np.isfinite(history["topic_logits_kl"][0])


@only_eager
def test_teachers_made_for_something_else(tmp_path):
    setting = Setting("bert")
    train(setting, tmp_path)
    written = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(
        ValueError, match=r"task 'tone' a teacher with `num_virtual_tokens`=3, not 5"
    ):
        keras_mpt.Distillation(student(setting, length=5), tmp_path)
    with pytest.raises(ValueError, match="`num_virtual_tokens`=3, not 5"):
        train(setting, tmp_path, config=config(num_virtual_tokens=5))
    with pytest.raises(ValueError, match="task 'topic' a teacher with `num_classes`=3, not 5"):
        train(setting, tmp_path, num_classes={"tone": 2, "topic": 5})
    with pytest.raises(ValueError, match="task 'tone' a teacher with `pooling`='mean', not 'base'"):
        train(setting, tmp_path, pooling="base")
    other = Setting("bert", seed=1)
    with pytest.raises(ValueError, match="another backbone: a BertBackbone with other weights"):
        keras_mpt.Distillation(student(other), tmp_path)
    with pytest.raises(ValueError, match="another backbone: a BertBackbone with other weights"):
        train(other, tmp_path)
    roberta = Setting("bert")
    roberta.backbone = tiny.backbone("roberta")
    with pytest.raises(ValueError, match="another backbone: a BertBackbone, not a RobertaBackbone"):
        keras_mpt.Distillation(student(roberta), tmp_path)
    assert written == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_bad_data_are_refused_before_any_training(tmp_path):
    setting = Setting("bert")
    datasets = setting.datasets()
    x, y = datasets["topic"]
    empty = {k: v[:0] for k, v in x.items()}
    wrong = {
        "Received: none for task 'topic'": {**datasets, "topic": (empty, y[:0])},
        "In the data of task 'topic': `y` should hold labels in": {**datasets, "topic": (x, y + 3)},
        "In the data of task 'topic': `y` should have one label per row": {
            **datasets, "topic": (x, y[:1]),
        },
        "In the data of task 'topic': `y` should be given": {**datasets, "topic": (x,)},
        "names that a folder can have": {"../a": datasets["tone"]},
        "with a task at least": {},
    }  # fmt: skip
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            train(setting, tmp_path, datasets=given, num_classes=2 if "../a" in given else TASKS)
    for name in ("..", ".", "", "/a", "a/b", "a\\b", "c:a", "a\0", "a" * 250, 3):
        given = {"tone": datasets["tone"], name: datasets["topic"]}
        with pytest.raises(ValueError, match="names that a folder can have. Received: a task"):
            train(setting, tmp_path, datasets=given, num_classes=3)
    with pytest.raises(ValueError, match="`num_classes` should have each task's number"):
        train(setting, tmp_path, num_classes={"tone": 2})
    with pytest.raises(ValueError, match="`config` should be a PromptTuningConfig"):
        train(setting, tmp_path, config=keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3))
    assert not list(tmp_path.iterdir())


@only_torch
def test_where_no_teacher_can_be_kept(tmp_path):
    """It is said before any of them is trained."""
    setting = Setting("bert")
    (tmp_path / "topic").write_text("mine")
    for directory, words in (
        (tmp_path, "topic', a file"),
        (tmp_path / "topic" / "deeper", "under '.*topic', a file"),
        (f"{tmp_path}/a\0", "with a NUL in it"),
    ):
        with pytest.raises(ValueError, match=f"`directory` should be a directory. .*{words}"):
            train(setting, directory)
    assert [p.name for p in tmp_path.iterdir()] == ["topic"]


@only_torch
def test_half_a_teacher_is_none(tmp_path):
    setting = Setting("bert")
    whole = train(setting, tmp_path / "whole")
    train(setting, tmp_path / "parts")
    weights = tmp_path / "parts" / "tone" / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    train(setting, tmp_path / "parts")
    states = [keras_mpt.read_state_dict(d) for d in (whole["tone"], tmp_path / "parts" / "tone")]
    for key in states[0]:
        np.testing.assert_array_equal(states[0][key], states[1][key])
    # Of a broken one nobody knows what it was: it is not trained over.
    weights.write_bytes(content[:-4])
    with pytest.raises(ValueError, match="should be a safetensors file. Received: .*truncated"):
        train(setting, tmp_path / "parts")
    assert weights.read_bytes() == content[:-4]


@only_torch
def test_teachers_are_not_looked_for_elsewhere(tmp_path):
    setting = Setting("bert")
    train(setting, tmp_path / "all")
    for names in (["tone", ".."], [str(tmp_path / "all" / "tone"), "topic"], ["tone", "a\0"]):
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=LENGTH, num_tasks=2, task_names=names
        )
        model = keras_mpt.prompt_tune(setting.backbone, config, num_classes=[2, 3], pooling="mean")
        message = "`teachers` should be a dict where the student's tasks have names that no folder"
        with pytest.raises(ValueError, match=message):
            keras_mpt.Distillation(model, tmp_path / "all")
