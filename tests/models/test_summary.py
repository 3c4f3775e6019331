"""`model.summary()` shows what is trained and what is frozen, each number once."""

import re

import keras
import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_torch


def config(**kwargs):
    return keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=2, **kwargs)


def make(task_type, kind="bert", **kwargs):
    return keras_mpt.prompt_tune(tiny.backbone(kind), config(task_type=task_type), **kwargs)


def masked():
    return keras_mpt.prompt_tune(keras_hub.models.BertMaskedLM(tiny.backbone()), config())


KINDS = {
    "heads": lambda: make("SEQ_CLS", num_classes=[2, 3]),
    "layers below a head": lambda: make("SEQ_CLS", "roberta", num_classes=3),
    "mean": lambda: make("SEQ_CLS", "plain", num_classes=[2, 3], pooling="mean"),
    "heads of tokens": lambda: make("TOKEN_CLS", num_classes=[2, 3]),
    "spans": lambda: make("QUESTION_ANS"),
    "causal": lambda: make("CAUSAL_LM", "gpt2"),
    "encoder-decoder": lambda: make("SEQ_2_SEQ_LM", "t5"),
    "masked": masked,
    "backbone": lambda: make("FEATURE_EXTRACTION"),
    "one prompt": lambda: make("CAUSAL_LM", "gpt2").fold(0),
    "P frozen": lambda: keras_mpt.prompt_tune(tiny.backbone("plain"), config(train_shared=False)),
}


def shown(model, monkeypatch):
    """The summary's text, and the numbers in it: its rows', and those below them by their names."""
    monkeypatch.setenv("COLUMNS", "160")
    lines = []
    model.summary(160, print_fn=lines.append)
    text = "\n".join(lines)
    rows = re.findall(r"^│ (.+?) +│ (.+?) +│ +([\d,]+) │", text, re.MULTILINE)
    below = dict(re.findall(r"^ (\w[\w-]*) params: ([\d,]+) ", text, re.MULTILINE))
    numbers = {name: int(value.replace(",", "")) for name, value in below.items()}
    return text, [(row[0], row[1], int(row[2].replace(",", ""))) for row in rows], numbers


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize("kind", KINDS)
def test_each_number_is_counted_once(kind, monkeypatch):
    model = KINDS[kind]()
    text, rows, below = shown(model, monkeypatch)
    trained = {id(v) for v in model.trainable_variables}
    frozen = [v for layer in model.always_frozen for v in layer.weights]
    frozen = list({id(v): v for v in frozen}.values())
    if not getattr(model.prompt, "train_shared", True):
        frozen.append(model.prompt.prompt_embeddings)
    assert not trained & {id(v) for v in frozen}
    assert below == {
        "Total": model.parameter_count() + count(frozen),
        "Trainable": model.parameter_count(),
        "Non-trainable": count(frozen),
    }
    assert "unbuilt" not in text and "?" not in [shape for _, shape, _ in rows]
    assert len(rows) == len(model.layers)
    assert sum(number for *_, number in rows) == below["Total"]
    of_prompt = next(row for row in rows if row[0].startswith("prompt ("))
    assert of_prompt[1] == f"(None, {3 * model.config.submodules}, {tiny.WIDTH})"
    # Where it is printed beside another count, that is the same.
    assert f" of {below['Total']:,} numbers" in str(model)


@only_torch
def test_after_training_the_optimizer_s_stand_apart(monkeypatch, tmp_path):
    model = KINDS["mean"]()
    before = shown(model, monkeypatch)[2]
    x = {**tiny.inputs(model.backbone), "task_ids": [0, 1, 0, 1]}
    model.fit(x, np.array([0, 1, 1, 0]), verbose=0)
    text, _, after = shown(model, monkeypatch)
    assert {name: after[name] for name in ("Trainable", "Non-trainable")} == {
        name: before[name] for name in ("Trainable", "Non-trainable")
    }
    assert f"Optimizer params: {count(model.optimizer.variables)} " in text
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert shown(loaded, monkeypatch)[2] == before


@only_torch
def test_of_frozen_tasks_it_says_so(monkeypatch):
    model = KINDS["heads"]()
    assert "frozen tasks'" not in shown(model, monkeypatch)[0]
    model.add_task("c", num_classes=4, train_shared=False)
    text, _, below = shown(model, monkeypatch)
    kept = below["Trainable"] - model.parameter_count()
    assert kept > 0
    assert text.endswith(
        f" Of the trainable params {kept:,} are frozen tasks' and stay as they are: "
        f"{model.parameter_count():,} are trained."
    )
