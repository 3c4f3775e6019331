"""What `add_task`, `remove_task`, `rename_task` and `fold` refuse, with the model unchanged."""

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.models.classifiers import assert_unchanged, make, state


class Unbuildable(keras.optimizers.SGD):
    """An optimizer whose config leaves out an argument."""

    def __init__(self, needed, **kwargs):
        super().__init__(**kwargs)


FAMILIAR = r"one of the tasks \['a', 'b'\], or an id in \[0, 2\). Received: "
REFUSED = {
    "name that exists": (
        lambda m: m.add_task("b", num_classes=2),
        r"`name` should be a string that is not empty and not yet the name of a task: there are "
        r"\['a', 'b'\]. Received: name='b'",
    ),
    "empty name": (lambda m: m.add_task("", num_classes=2), "Received: name=''"),
    "name that is no string": (lambda m: m.add_task(3, num_classes=2), "Received: name=3"),
    "unknown source": (
        lambda m: m.add_task("c", from_="x"),
        f"`from_` should be 'average', 'shared', None, or {FAMILIAR}from_='x'",
    ),
    "source out of range": (lambda m: m.add_task("c", from_=2), "Received: from_=2"),
    "source that is a bool": (lambda m: m.add_task("c", from_=True), "Received: from_=True"),
    "no classes": (
        lambda m: m.add_task("c"),
        "`num_classes` should be given: each task has a head, and only from_=<a task> brings one "
        "along. Received: num_classes=None with from_='average'",
    ),
    "several classes": (
        lambda m: m.add_task("c", num_classes=[2]),
        "`num_classes` should be one positive integer, the new task's. Received: num_classes=",
    ),
    "zero classes": (
        lambda m: m.add_task("c", num_classes=0),
        "`num_classes` should be a positive integer, or a list with one per task. Received: "
        "num_classes=0",
    ),
    "unknown task to remove": (
        lambda m: m.remove_task("x"),
        f"`task` should be {FAMILIAR}task='x'",
    ),
    "unknown id to remove": (lambda m: m.remove_task(-1), "Received: task=-1"),
    "unknown task to rename": (
        lambda m: m.rename_task("x", "y"),
        f"`old` should be {FAMILIAR}old='x'",
    ),
    "new name that exists": (
        lambda m: m.rename_task("a", "b"),
        "`new` should be a string that is not empty and not yet the name of a task: .* Received: "
        "new='b'",
    ),
    "unknown task to fold": (lambda m: m.fold(2), f"`task` should be {FAMILIAR}task=2"),
}


@pytest.fixture(scope="module")
def model():
    """A model that no test changes."""
    return make()


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_changes_nothing(model, what):
    call, message = REFUSED[what]
    before = state(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    assert_unchanged(model, before)


def test_the_last_task_stays():
    model = make("backbone", num_tasks=1, task_names=["a"])
    with pytest.raises(
        ValueError, match="`task` should leave the model a task. Received: task='a'"
    ):
        model.remove_task("a")
    assert model.config.names == ["a"]


def test_classes_are_out_of_place_without_a_head_per_task():
    for kind in ("shared head", "backbone"):
        with pytest.raises(
            ValueError,
            match="`num_classes` should be left out: this model has no head per task. Received: "
            "num_classes=3",
        ):
            make(kind).add_task("c", num_classes=3)


def test_a_model_without_tasks_has_none_to_change():
    single = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), single)
    for call in (
        lambda: model.add_task("c"),
        lambda: model.remove_task(0),
        lambda: model.rename_task(0, "c"),
        lambda: model.fold(0),
    ):
        with pytest.raises(
            ValueError,
            match="`config` should be a MultitaskPromptTuningConfig for a model to have tasks. "
            "Received: a model with a PromptTuningConfig",
        ):
            call()


def test_an_optimizer_that_cannot_be_made_anew_is_refused_before_any_change():
    model = make()
    model.compile(Unbuildable(1), model.loss)
    before = state(model)
    with pytest.raises(
        ValueError,
        match="The model should be compiled with an optimizer .* Received: an? Unbuildable",
    ):
        model.remove_task("a")
    assert_unchanged(model, before)


@pytest.mark.parametrize("shapes", [((2, 3, 2), (3, 2, 4)), ((0, 3, 2), (0, 2, 4))])
def test_factors_of_another_shape_are_refused(shapes):
    layer = keras_mpt.MultitaskPromptEmbedding(3, 4, 2, num_ranks=2)
    before = layer.get_peft_state_dict()
    with pytest.raises(ValueError, match=r"`prefix_task_.*` in `cols and rows` should have shape"):
        layer.replace_tasks(*(np.ones(shape) for shape in shapes))
    assert layer.num_tasks == 2
    for name, value in layer.get_peft_state_dict().items():
        np.testing.assert_array_equal(value, before[name])
