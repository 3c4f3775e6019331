"""The suite runs on this backend, in small: both sides agree, and all is timed."""

import gc

import keras
import numpy as np
import pytest

pytest.importorskip("torch", reason="PEFT runs on PyTorch")
pytest.importorskip("transformers", reason="PEFT's models are transformers'")
pytest.importorskip("peft", reason="PEFT is what is measured against")

from benchmarks import (  # noqa: E402
    adapters,
    bank,
    cases,
    floor,
    generation,
    label_words,
    lengths,
    long_prompts,
    memory,
    one_text,
    prompts_apart,
    steps,
    tasks,
    training,
)
from benchmarks.cases import Case  # noqa: E402
from benchmarks.part import sized, written  # noqa: E402
from tests.marks import only_eager  # noqa: E402

BACKEND = keras.backend.backend()
GPT2 = cases.small(Case("GPT-2", 20, 16, 64))


def check(row, names):
    assert row["agrees"]
    assert set(row["seconds"]) == set(names)
    assert all(len(v) == 2 and min(v) > 0 for v in row["seconds"].values())


@only_eager
@pytest.mark.parametrize("shape", ["GPT-2", "T5"])
def test_training(shape):
    case = next(sized(c, True) for c in training.CASES if c.shape == shape)
    row = training.row(case, quick=True)
    names = ("peft", "ours", "floor") + (("prompts", "head") if shape == "GPT-2" else ())
    check(row, names)
    assert row["difference"] < 1e-5


def test_the_step_is_compiled_once_in_an_epoch():
    assert training.compilations(GPT2) == {"tensorflow": 1, "jax": 1, "torch": None}[BACKEND]


@only_eager
@pytest.mark.parametrize("how", ["float32", "float32, blocks again"])
def test_label_words(how):
    case = sized(label_words.CASE, True)
    with written(case) as folder:
        row = label_words.row(case, how, folder, quick=True)
    check(row, ("peft", "ours"))
    assert row["difference"] < 1e-5


@only_eager
def test_both_train_towards_the_one_word():
    """After steps from the same weights, so do PEFT's labels and our weights."""
    case = sized(label_words.CASE, True)
    data = cases.batch(case)
    with written(case) as folder:
        theirs, ours = cases.open_peft(case, folder), cases.open_ours(case, folder)
    for run in (steps.peft_step(case, theirs, data), steps.our_step(case, ours, data)):
        for _ in range(3):
            run()
    assert steps.difference(case, ours, theirs, data) < 1e-5


@only_eager
def test_prompts_apart():
    row = prompts_apart.row(sized(prompts_apart.CASES[1], True), 2, quick=True)
    assert row["agrees"] and row["prompts"] == 4 and set(map(len, row["seconds"].values())) == {2}


@only_eager
def test_long_prompts():
    (row,) = long_prompts.measure(quick=True)["rows"]
    check(row, ("peft", "ours", "floor", "prompts", "head"))
    assert row["difference"] < 1e-5


@only_eager
def test_one_text():
    row = one_text.row(sized(one_text.CASES[0], True), quick=True)
    check(row, ("peft", "before", "after"))
    assert row["difference"] < 1e-5 and row["tasks"] == 2


def test_lengths():
    case = sized(lengths.CASE, True)
    with written(case) as folder:
        row = lengths.row(case, cases.open_ours(case, folder), quick=True)
    check(row, ("plain", "bucketed"))
    assert row["difference"] < 1e-5


@only_eager
def test_generation():
    row = generation.row(sized(generation.CASES[1], True), new=3, quick=True)
    check(row, [f"{side}{part}" for side in ("peft", "ours", "bare") for part in ("", " first")])
    assert row["same"] == 1


@only_eager
@pytest.mark.parametrize("case", [sized(c, True) for c in bank.CASES], ids=lambda c: c.shape)
def test_bank(case, tmp_path):
    with written(case) as folder:
        backbone = cases.open_backbone(case, folder)
    model = bank.own_model(case, backbone)
    bank.write(model, tmp_path, 3)
    for count, names in ((1, ()), (3, ("apart",))):
        row = bank.row(case, backbone, model, tmp_path, count, quick=True)
        check(row, ("bank", "alone", "cold", *names))
        assert row["difference"] < 1e-5 and row["bytes"] > 0


@only_eager
def test_tasks_and_adam_alone():
    check(tasks.row(tasks.all_cases(quick=True)[1], quick=True), ("peft", "ours", "sparse", "adam"))


@only_eager
def test_adapters():
    row = adapters.row(GPT2, quick=True)
    check(row, ("peft save", "ours save", "peft load", "ours load"))


def test_both_steps_train_the_same_and_other_weights_are_noticed(tmp_path):
    cases.write(GPT2, tmp_path)
    theirs, ours = cases.open_peft(GPT2, tmp_path), cases.open_ours(GPT2, tmp_path)
    data = cases.batch(GPT2)
    before = steps.our_logits(GPT2, ours, data)
    for run in (steps.peft_step(GPT2, theirs, data), steps.our_step(GPT2, ours, data)):
        for _ in range(3):
            run()
    assert steps.difference(GPT2, ours, theirs, data) < 1e-4
    assert np.abs(steps.our_logits(GPT2, ours, data) - before).max() > 1e-5
    p = ours.prompt.prompt_embeddings
    p.assign(p + 0.1)
    assert steps.difference(GPT2, ours, theirs, data) > cases.TOLERANCE


def test_the_floor_runs_the_backbone_on_the_tokens_alone(tmp_path):
    cases.write(GPT2, tmp_path)
    backbone = cases.open_backbone(GPT2, tmp_path)
    backbone.trainable = False
    ids = cases.batch(GPT2).ids
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    bare = floor.Bare(backbone)
    expected, found = backbone.predict_on_batch(inputs), bare.predict_on_batch(inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert [tuple(v.shape) for v in bare.trainable_variables] == [(backbone.hidden_dim,)]
    step = floor.bare_step(backbone, *ids.shape)
    step()


@pytest.mark.parametrize("distinct", [1, 3])
def test_a_batch_holds_as_many_tasks_as_it_says(distinct):
    data = cases.batch(Case("GPT-2", 4, 8, 6, tasks=100, distinct=distinct, small=True))
    assert len(np.unique(data.task_ids)) == distinct
    assert data.task_ids.max() < 100 and data.ids.shape == (8, 6)


def test_adam_alone_updates_every_number():
    update = tasks.AdamAlone([(3, 4), (2, 3, 1)])
    update()
    update()
    assert [value.shape for value in update.values()] == [(3, 4), (2, 3, 1)]
    for value in update.values():
        # Under constant gradients Adam moves by its rate.
        np.testing.assert_allclose(1 - value, 2 * steps.RATE, rtol=1e-2)


def test_peak_memory_sees_an_array_that_is_gone_again():
    gc.collect()
    before = memory._reset_peak()
    array = np.ones(40 * 2**20, "uint8")
    del array
    assert 39 * 2**20 <= memory._peak() - before < 60 * 2**20


@only_eager
def test_memory_of_a_fresh_process(tmp_path):
    with written(GPT2) as folder:
        assert 0 < memory.in_fresh_process("ours", GPT2, folder) < 2**31
