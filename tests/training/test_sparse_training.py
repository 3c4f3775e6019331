import keras
import numpy as np
import pytest
import torch

import keras_mpt
from tests import tiny
from tests.marks import only_eager

TASKS, LENGTH = 6, 3


def language_model(**config):
    """Without a head that is trained, and without dropout."""
    backbone = tiny.with_large_weights(tiny.backbone("gpt2", dropout=0.0))
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=TASKS, num_ranks=2, **config
    )
    keras.utils.set_random_seed(3)
    return keras_mpt.prompt_tune(backbone, config)


def classifier(num_classes=2):
    backbone = tiny.with_large_weights(tiny.backbone("plain"))
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=LENGTH, num_tasks=TASKS, num_ranks=2
    )
    keras.utils.set_random_seed(3)
    return keras_mpt.prompt_tune(backbone, config, num_classes=num_classes, pooling="mean")


def rows(model, task_ids, seed=0):
    x = tiny.inputs(model.backbone, rows=len(task_ids), seed=seed)
    return {**x, "task_ids": np.array(task_ids, "int32")}


def values(model):
    variables = [*model.prompt.named_weights().values(), *model.trainable_variables]
    return [keras.ops.convert_to_numpy(v).astype("float64") for v in variables]


def assert_trained_alike(plain, sparse, start, tolerance=1e-6):
    found = list(zip(values(plain), values(sparse), start, strict=True))
    for ours, theirs, before in found:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
        assert np.abs(ours - before).max() > 1e-4


def few_tasks(model):
    """Batches of four rows and two tasks."""
    ids = [[0, 4, 4, 0], [1, 1, 5, 5], [4, 1, 4, 1], [0, 0, 0, 5]]
    batches = [rows(model, own, seed) for seed, own in enumerate(ids)]
    y = np.random.default_rng(0).integers(0, 2, 16)
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}, y


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1), id="adamw"),
        pytest.param(lambda: keras.optimizers.Adagrad(0.1), id="adagrad", marks=only_eager),
        pytest.param(
            lambda: keras_mpt.two_speed_optimizer(0.01, 0.05, 0.02),
            id="two speeds",
            marks=only_eager,
        ),
    ],
)
def test_with_all_tasks_in_each_batch_it_is_a_plain_fit(optimizer):
    trained = []
    for is_sparse in (False, True):
        model = classifier(num_classes=[2, 3, 2, 2, 4, 2])
        x, y = rows(model, [*range(TASKS), 2, 0] * 3), np.array([0, 1] * 12)
        start = values(model)
        fitted = keras_mpt.SparseTraining(model, 8) if is_sparse else model
        fitted.compile(optimizer())
        history = fitted.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        trained.append((model, history.history))
    (plain, logs), (sparse, sparse_logs) = trained
    assert_trained_alike(plain, sparse, start)
    assert list(logs) == list(sparse_logs)
    for name, own in logs.items():
        np.testing.assert_allclose(own, sparse_logs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("made", [classifier, pytest.param(language_model, marks=only_eager)])
def test_by_sgd_it_is_a_plain_fit_whatever_batches_hold(made):
    trained = []
    for is_sparse in (False, True):
        model = made()
        x, y = few_tasks(model)
        if made is language_model:
            y = x["token_ids"][:, ::-1]
        start = values(model)
        fitted = keras_mpt.SparseTraining(model, 2) if is_sparse else model
        fitted.compile(keras.optimizers.SGD(0.1))
        fitted.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        trained.append(model)
    plain, sparse = trained
    for ours, theirs in zip(values(plain), values(sparse), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    before, after = start[1], values(sparse)[1]
    changed = np.abs(after - before).max(axis=(1, 2)) > 0
    assert changed.tolist() == [True, True, False, False, True, True]  # 2 and 3 were in no batch.


def test_adam_is_that_of_torch_for_sparse_gradients():
    model = language_model(train_shared=False)
    training = keras_mpt.SparseTraining(model, 3)
    training.compile(keras.optimizers.Adam(0.05, epsilon=1e-7))
    reference = language_model(train_shared=False)
    # A gradient is a difference of weights: of a small step, float32 would leave little of it.
    reference.compile(keras.optimizers.SGD(far := 1024.0))
    tables = [torch.tensor(v, requires_grad=True) for v in values(model)[1:3]]
    # Keras adds epsilon to a root that was corrected with it, which so small a one does not show.
    adam = torch.optim.SparseAdam(tables, lr=0.05, eps=1e-7)
    shared = keras.ops.convert_to_numpy(reference.prompt.prompt_embeddings)
    for step, ids in enumerate([[0, 4, 4], [1, 5, 1], [4, 1, 5], [4, 0, 4], [5, 5, 5]]):
        x, y = rows(model, ids, step), np.full((len(ids), 6), step + 2)
        now = [t.detach().numpy() for t in tables]
        names = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")
        reference.prompt.set_peft_state_dict(dict(zip(names, [shared, *now], strict=True)))
        reference.train_on_batch(x, y)
        places = torch.tensor(sorted(set(ids)))
        for table, old, new in zip(tables, now, values(reference)[1:3], strict=True):
            gradient = torch.tensor((old - new) / far)[places]
            table.grad = torch.sparse_coo_tensor(
                places[None], gradient, table.shape, check_invariants=True
            )
        adam.step()
        training.train_on_batch(x, y)
        for table, own in zip(tables, values(model)[1:3], strict=True):
            np.testing.assert_allclose(own, table.detach().numpy(), rtol=0, atol=2e-5)
    start = values(language_model(train_shared=False))[1]
    assert (values(model)[1][2:4] == start[2:4]).all()
    assert np.abs(values(model)[1][[0, 1, 4, 5]] - start[[0, 1, 4, 5]]).min() > 1e-3


@only_eager
def test_frozen_tasks_and_streams(tmp_path):
    model = classifier(num_classes=2)
    model.add_task("new", from_="shared", train_shared=False)
    before = values(model)[:3]
    x = tiny.inputs(model.backbone, rows=4)
    mix = keras_mpt.TaskMix(
        {"task_1": (x, np.array([0, 1, 1, 0])), "new": (x, np.array([1, 0, 1, 1]))}, batch_size=4
    )
    training = keras_mpt.SparseTraining(model, 2)
    training.compile("adam")
    history = training.fit(mix, epochs=2, validation_data=mix, verbose=0)
    p, cols, new_rows = values(model)[:3]
    assert (p == before[0]).all() and (cols[:-1] == before[1][:-1]).all()
    assert np.abs(cols[-1] - before[1][-1]).max() > 1e-4
    assert np.abs(new_rows[-1] - before[2][-1]).max() > 1e-4
    logs = model.evaluate(mix, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(history.history["val_loss"][-1], abs=1e-6)
    with pytest.raises(ValueError, match="The model should be saved"):
        training.save(tmp_path / "model.keras")


@only_eager
def test_what_a_task_keeps_is_its_own_through_steps_without_it():
    """Momentum that was gathered in one batch is there in the next one that holds the task."""
    trained = []
    for between in ([], [[2, 3]]):
        model = language_model(train_shared=False)
        training = keras_mpt.SparseTraining(model, 2)
        training.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        for ids in [[0, 1], *between, [0, 1], *between, [1, 0]]:
            training.train_on_batch(rows(model, ids), np.full((2, 6), 2))
        trained.append(values(model)[1][:2])
    np.testing.assert_allclose(*trained, rtol=0, atol=1e-7)


@only_eager
def test_bad_input_changes_nothing():
    model = classifier()
    x, y = few_tasks(model)
    start = values(model)
    training = keras_mpt.SparseTraining(model, 2)
    message = r"`tasks_per_batch` should be at least .* tasks_per_batch=2 and a batch of 4 tasks"
    with pytest.raises(ValueError, match=message):
        training.fit(x, y, batch_size=16, verbose=0)
    before = model.optimizer
    for wrong, said in {
        "muon": "Received: a Muon",
        keras.optimizers.Adam(use_ema=True): "Received: a Adam with use_ema=True",
        keras.optimizers.SGD(gradient_accumulation_steps=2): "gradient_accumulation_steps=2",
    }.items():
        with pytest.raises(ValueError, match=f"`optimizer` should be one of SGD, Adam.*{said}"):
            training.compile(wrong)
    assert training.optimizer is before
    with pytest.raises(ValueError, match="`model` should be .* Received: a PromptTunedBackbone"):
        keras_mpt.SparseTraining(
            keras_mpt.prompt_tune(
                model.backbone,
                keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=2, num_tasks=2),
            )
        )
    with pytest.raises(ValueError, match="`tasks_per_batch` should be a positive integer"):
        keras_mpt.SparseTraining(model, 0)
    mix = keras_mpt.TaskMix({"task_0": (x, y)}, batch_size=4)
    with pytest.raises(ValueError, match="`ResumeTraining` should be used with the model's own"):
        training.fit(mix, callbacks=[keras_mpt.ResumeTraining("unused", mix)], verbose=0)
    for own, old in zip(values(model), start, strict=True):
        np.testing.assert_array_equal(own, old)
    model.add_task("new")
    with pytest.raises(ValueError, match="made anew .* one for 6 tasks, and a model of 7"):
        training.fit(x, y, batch_size=4, verbose=0)
