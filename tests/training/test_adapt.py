import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_eager


def source_model(num_classes=(2, 3), kind="bert", apart=0.3, **kwargs):
    """Tasks that were moved apart, as training moves them."""
    backbone = tiny.with_large_weights(tiny.backbone(kind, dropout=0.0))
    task_type = "SEQ_CLS" if kind == "bert" else "CAUSAL_LM"
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=3, num_tasks=2, task_names=["tone", "topic"], seed=0
    )
    classes = {"num_classes": num_classes} if kind == "bert" else {}
    model = keras_mpt.prompt_tune(backbone, config, **classes, **kwargs)
    rng = np.random.default_rng(0)
    state = model.prompt.get_peft_state_dict()
    state["prefix_task_cols"] = rng.normal(1, apart, state["prefix_task_cols"].shape)
    state["prefix_task_rows"] = rng.normal(1, apart, state["prefix_task_rows"].shape)
    model.prompt.set_peft_state_dict(state)
    return model


def test_factors_start_where_they_are_told():
    source = source_model()
    state = source.prompt.get_peft_state_dict()
    model = keras_mpt.adapt(
        source, ["a", "b", "c"], num_classes=[2, 3, 4], from_=["average", "topic", "shared"]
    )
    found = model.prompt.get_peft_state_dict()
    np.testing.assert_array_equal(found["prompt_embeddings"], state["prompt_embeddings"])
    for name in ("prefix_task_cols", "prefix_task_rows"):
        np.testing.assert_allclose(found[name][0], state[name].mean(0), rtol=1e-6)
        np.testing.assert_array_equal(found[name][1], state[name][1])
    products = found["prefix_task_cols"][2] @ found["prefix_task_rows"][2]
    np.testing.assert_array_equal(products, np.ones_like(products))
    assert dict(model.adapted_from) == {"a": "average", "b": "topic", "c": "shared"}
    assert model.config.names == ["a", "b", "c"]
    assert model.backbone is source.backbone


@pytest.mark.parametrize("train_shared", [True, False])
def test_p_is_trained_or_frozen(train_shared, tmp_path):
    source = source_model()
    before = source.prompt.get_peft_state_dict()
    model = keras_mpt.adapt(source, "a", num_classes=2, train_shared=train_shared)
    x = tiny.inputs(source.backbone)
    model.fit({**x, "task_ids": "a"}, np.array([0, 1, 0, 1]), epochs=2, verbose=0)
    after = model.prompt.get_peft_state_dict()
    moved = not np.array_equal(before["prompt_embeddings"], after["prompt_embeddings"])
    assert moved == train_shared
    assert not np.array_equal(before["prefix_task_cols"].mean(0), after["prefix_task_cols"][0])
    for name, value in source.prompt.get_peft_state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    # It stays so in a file, and when all is set to be trained.
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.prompt.trainable = True
    paths = [v.path for v in loaded.trainable_variables]
    assert any(path.endswith("prompt_embeddings") for path in paths) == train_shared
    frozen = 0 if train_shared else 3 * tiny.WIDTH
    assert (
        model.parameter_count() == 3 * tiny.WIDTH + 3 + tiny.WIDTH - frozen + (tiny.WIDTH + 1) * 2
    )


@only_eager
@pytest.mark.parametrize("start", ["average", "topic", "shared"])
def test_more_ranks_leave_the_start_as_it_is_and_learn(start, tmp_path):
    source = source_model()
    arguments = {"num_classes": 2, "from_": start, "train_shared": False}
    one, three = (keras_mpt.adapt(source, "a", num_ranks=ranks, **arguments) for ranks in (None, 3))
    before, plain = three.prompt.get_peft_state_dict(), one.prompt.get_peft_state_dict()
    np.testing.assert_array_equal(
        before["prefix_task_cols"] @ before["prefix_task_rows"],
        plain["prefix_task_cols"] @ plain["prefix_task_rows"],
    )
    # Three tokens are dealt out to the two ranks that were added.
    np.testing.assert_array_equal(before["prefix_task_cols"][0, :, 1:], [[1, 0], [0, 1], [1, 0]])
    ids = tiny.inputs(source.backbone)
    three.fit({**ids, "task_ids": "a"}, np.array([0, 1, 0, 1]), epochs=1, verbose=0)
    after = three.prompt.get_peft_state_dict()
    np.testing.assert_array_equal(after["prompt_embeddings"], before["prompt_embeddings"])
    # A step moves the new rows at once, each its own way; of numbers without a gradient none.
    first, second = after["prefix_task_rows"][0, 1:]
    assert np.any(first != 0) and np.any(second != 0) and not np.array_equal(first, second)
    assert three.config.num_ranks == 3
    assert three.parameter_count() - one.parameter_count() == 2 * (3 + tiny.WIDTH)
    three.save_adapter(tmp_path)
    again = keras_mpt.load_adapter(source.backbone, tmp_path)
    for name, value in again.prompt.get_peft_state_dict().items():
        np.testing.assert_array_equal(value, after[name])


def test_fewer_ranks_than_the_source_has_are_refused():
    source = keras_mpt.adapt(source_model(), "a", num_classes=2, num_ranks=2)
    assert keras_mpt.adapt(source, "b", num_classes=2).config.num_ranks == 2
    message = "`num_ranks` should be at least the source's, 2. Received: num_ranks=1"
    with pytest.raises(ValueError, match=message):
        keras_mpt.adapt(source, "b", num_classes=2, num_ranks=1)


def test_from_a_directory(tmp_path):
    source = source_model()
    source.save_adapter(tmp_path)
    model = keras_mpt.adapt(tmp_path, "a", base=source.backbone, num_classes=2, from_="tone")
    np.testing.assert_array_equal(
        model.prompt.get_peft_state_dict()["prefix_task_rows"][0],
        source.prompt.get_peft_state_dict()["prefix_task_rows"][0],
    )


def test_a_causal_model_has_its_sources_prompt_at_once():
    source = source_model(kind="gpt2")
    model = keras_mpt.adapt(source, "a", from_="topic")
    x = tiny.inputs(source.backbone)
    expected = keras.ops.convert_to_numpy(source({**x, "task_ids": "topic"}))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model({**x, "task_ids": "a"})), expected
    )


def test_a_shared_head_comes_along():
    source = source_model(num_classes=3)
    model = keras_mpt.adapt(source, "a", from_="tone")
    x = tiny.inputs(source.backbone)
    expected = keras.ops.convert_to_numpy(source({**x, "task_ids": "tone"}))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model({**x, "task_ids": "a"})), expected
    )


def test_as_many_classes_as_the_sources_share_are_not_theirs():
    source = source_model(num_classes=3)
    kernel = source.logits.kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    model = keras_mpt.adapt(source, "a", num_classes=3)
    fresh, own = (keras.ops.convert_to_numpy(k) for k in (model.logits.kernel, kernel))
    assert np.abs(fresh - own).min() > 0


@pytest.mark.parametrize("pooling", ["base", "mean"])
def test_a_named_tasks_head_comes_along(pooling):
    source = source_model(pooling=pooling)
    rng = np.random.default_rng(0)
    for variable in source.head.weights().values():  # Biases start as zeros.
        variable.assign(rng.normal(size=variable.shape))
    model = keras_mpt.adapt(
        source, ["a", "b", "c"], num_classes=[None, 4, None], from_=["topic", "topic", "tone"]
    )
    assert model.num_classes == [3, 4, 2]
    x = tiny.inputs(source.backbone)

    def logits(model, task):
        return keras.ops.convert_to_numpy(model({**x, "task_ids": task}))

    np.testing.assert_array_equal(logits(model, "a")[:, :3], logits(source, "topic"))
    np.testing.assert_array_equal(logits(model, "c")[:, :2], logits(source, "tone")[:, :2])
    fresh = keras.ops.convert_to_numpy(model.logits.kernel)[:, model.logits.columns(1)]
    assert np.abs(fresh).max() < 0.05, "that of `b` should have been left as it starts"
    alone = keras_mpt.adapt(source, "a", from_="topic")
    np.testing.assert_array_equal(logits(alone, "a"), logits(source, "topic"))


@only_eager
def test_the_nearest_source_is_the_task_itself(capsys):
    """A target whose tokens are drawn from what a source predicts moves towards that source."""
    source = source_model(kind="gpt2", apart=1.0)
    x, rng = tiny.inputs(source.backbone, rows=128), np.random.default_rng(0)
    for k, task in enumerate(["tone", "topic"]):
        logits = source.predict({**x, "task_ids": task}, verbose=0)
        # The largest after Gumbel noise is a draw from the distribution.
        y = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
        given = {"from_": "nearest", "data": {"a": (x, y)}, "probe_epochs": 5}
        model = keras_mpt.adapt(source, "a", **given, verbose=0)
        assert model.adapted_from["a"] == task
        similarities = dict(model.source_similarities["a"])
        assert sorted(similarities) == ["tone", "topic"]
        assert similarities[task] > 0 > similarities[source.config.names[1 - k]]
        np.testing.assert_array_equal(
            model.prompt.get_peft_state_dict()["prefix_task_rows"][0],
            source.prompt.get_peft_state_dict()["prefix_task_rows"][k],
        )
    assert not capsys.readouterr().out
    keras_mpt.adapt(source, "a", **{**given, "probe_epochs": 1}, verbose=2)
    assert "a: the nearest source task is" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"from_": "mood"}, "`from_` should be 'average', 'shared', None, or one of the tasks"),
        ({"from_": ["tone", "topic"]}, "`from_` should be one start, or a list with one per task"),
        ({"from_": "nearest"}, "`data` should have .x, y. of each task with from_='nearest'"),
        (
            {"from_": "lowest_loss"},
            "`data` should have .x, y. of each task with from_='lowest_loss'",
        ),
        (
            {"from_": "lowest_loss", "data": {"a": ([], [])}},
            "`from_` should be 'nearest', or a source task's name, for a model that does not",
        ),
        ({"num_classes": None}, "`num_classes` should be given for task 'a': only from_=<a source"),
        ({"num_classes": [2, 2]}, "`num_classes` should have an entry per task of .'a'."),
        (
            {"num_classes": None, "from_": "nearest", "data": {"a": ([], [])}},
            "`num_classes` should be given for task 'a'.* with from_='nearest'",
        ),
        ({"num_classes": 0}, "`num_classes` should be a positive integer"),
        ({"probe_epochs": 0}, "`probe_epochs` should be a positive integer. Received: .*=0"),
        ({"num_ranks": 0}, "`num_ranks` should be a positive integer. Received: num_ranks=0"),
        ({"num_ranks": 1.5}, "`num_ranks` should be a positive integer. Received: num_ranks=1.5"),
        ({"tasks": []}, "`tasks` should be"),
        ({"tasks": ["a", "a"]}, "`task_names` should be 2 different strings"),
    ],
)
def test_bad_arguments(arguments, message):
    given = {"tasks": "a", "num_classes": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        keras_mpt.adapt(source_model(), **given)


def test_the_lowest_loss_is_that_of_the_task_itself(capsys):
    """A target that is answered as a source answers has the lowest loss under its prompt."""
    source = source_model(kind="gpt2", apart=1.0)
    x = tiny.inputs(source.backbone, rows=8)
    names, before = source.config.names, source.get_weights()
    for k, task in enumerate(["tone", "topic"]):
        y = source.predict({**x, "task_ids": task}, verbose=0).argmax(-1)
        weight = np.linspace(0.5, 2.0, len(y))
        data = {"a": (x, y, weight)}
        model = keras_mpt.adapt(source, "a", from_="lowest_loss", data=data, verbose=0)
        assert model.adapted_from["a"] == task
        found = model.source_losses["a"]
        assert list(found) == names and min(found, key=found.get) == task
        # In float64, of the sources' own logits: each of a row's targets weighs as the row.
        for name, value in found.items():
            logits = source.predict({**x, "task_ids": name}, verbose=0).astype("float64")
            logits -= logits.max(-1, keepdims=True)
            likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            own = -np.take_along_axis(likely, y[..., None], -1)[..., 0]
            expected = np.average(own.mean(axis=1), weights=weight)
            assert value == pytest.approx(expected, rel=1e-4)
        for part in ("prefix_task_rows", "prefix_task_cols"):
            np.testing.assert_array_equal(
                model.prompt.get_peft_state_dict()[part][0],
                source.prompt.get_peft_state_dict()[part][k],
            )
    for old, new in zip(before, source.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not capsys.readouterr().out
    given = {"from_": ["lowest_loss", "tone"], "num_ranks": source.config.num_ranks + 1}
    both = keras_mpt.adapt(source, ["a", "b"], data=data, verbose=2, **given)
    assert "a: the lowest loss is that of topic (tone " in capsys.readouterr().out
    assert both.adapted_from == {"a": "topic", "b": "tone"}


@only_eager
def test_no_loss_is_lowest_where_none_is_a_number():
    source = source_model(kind="gpt2")
    # Too large for what is computed of it.
    source.prompt.prompt_embeddings.assign(np.full(source.prompt.prompt_embeddings.shape, 3e38))
    x = tiny.inputs(source.backbone)
    data = {"a": (x, np.zeros_like(x["token_ids"]))}
    with pytest.raises(ValueError, match="`from_` should name a source task where no loss is fini"):
        keras_mpt.adapt(source, "a", from_="lowest_loss", data=data, verbose=0)


@only_eager
def test_no_source_is_nearest_where_the_probe_tells_nothing():
    source = source_model(kind="gpt2")
    state = source.prompt.get_peft_state_dict()
    state["prefix_task_rows"][:] = state["prefix_task_rows"][:1]
    state["prefix_task_cols"][:] = state["prefix_task_cols"][:1]
    source.prompt.set_peft_state_dict(state, "test")
    x = tiny.inputs(source.backbone)
    data = {"a": (x, np.zeros_like(x["token_ids"]))}
    with pytest.raises(ValueError, match="`from_` should name a source .* sources that are all al"):
        keras_mpt.adapt(source, "a", from_="nearest", data=data, probe_epochs=1, verbose=0)


def test_bad_sources(tmp_path):
    source = source_model()
    source.save_adapter(tmp_path)
    with pytest.raises(ValueError, match="`base` should be the backbone of the adapter"):
        keras_mpt.adapt(tmp_path, "a", num_classes=2)
    with pytest.raises(ValueError, match="`source` should be a prompt-tuned model with tasks"):
        keras_mpt.adapt(source.fold("tone"), "a", num_classes=2)
    with pytest.raises(ValueError, match="`num_classes` should be left out"):
        keras_mpt.adapt(source_model(kind="gpt2"), "a", num_classes=2)
    with pytest.raises(ValueError, match="where the sources have one each"):
        keras_mpt.adapt(source_model(num_classes=3), "a", num_classes=[None], from_="tone")
