"""The prompts' keys and values that are kept between calls: used while right, and only then."""

import numpy as np
import pytest
from keras import ops

from tests.decoding.language_models import generated, inputs, make
from tests.marks import IS_EAGER


@pytest.fixture
def model():
    """A GPT-2 with three tasks that counts the prompts it runs."""
    model = make("gpt2")
    kept = model.kept_prompts
    compute, model.ran = kept.compute, []

    def counted(prompts):
        model.ran.append(len(prompts))
        return compute(prompts)

    kept.compute = counted
    return model


def text(model, task_ids=(0, 2), **kwargs):
    return generated(
        model.generate(inputs("gpt2"), task_ids=list(task_ids), stop_token_ids=None, **kwargs)
    )


def test_each_prompt_runs_once_in_all_calls(model):
    first = text(model)
    assert model.ran == [2]
    np.testing.assert_array_equal(text(model), first)
    text(model, (2, 2))
    assert model.ran == [2]
    text(model, (1, 2))
    assert model.ran == [2, 1]
    assert sorted(model.kept_prompts.tasks) == [0, 1, 2]


def trained(model):
    x = {**inputs("gpt2"), "task_ids": [0, 2]}
    model.fit(x, np.full((2, 8), 7), epochs=3, verbose=0)


def assigned(model):
    rows = model.prompt.prefix_task_rows
    rows.assign(ops.convert_to_numpy(rows) * -2)


def loaded(model):
    state = model.prompt.get_peft_state_dict()
    state["prompt_embeddings"] = -2 * np.roll(state["prompt_embeddings"], 1)
    model.prompt.set_peft_state_dict(state)


def grown(model):
    model.remove_task("a")
    model.add_task("d", from_="b")


def another_backbone(model):
    model.backbone.set_weights([w * -1.5 for w in model.backbone.get_weights()])


# Each is compiled anew elsewhere: those that change weights in three different ways are enough.
CHANGES = [trained, grown, another_backbone, *([assigned, loaded] if IS_EAGER else [])]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_stale_is_used(model, change):
    before = text(model)
    change(model)
    after = text(model)
    np.testing.assert_array_equal(after, text(model, use_cache=False))
    assert (after != before).any()


def test_a_change_of_one_task_leaves_the_others_kept(model):
    text(model)
    values = ops.convert_to_numpy(model.prompt.prefix_task_cols)
    values = np.concatenate([values[:2], values[2:] * 1.5])
    model.prompt.prefix_task_cols.assign(values)
    text(model)
    assert model.ran == [2, 1]


def test_what_is_kept_is_bounded(model):
    text(model, (0, 0))
    one = model.kept_prompts.nbytes
    # Keys and values of 3 virtual tokens in each layer, float32.
    assert one == model.backbone.num_layers * 2 * 3 * model.backbone.hidden_dim * 4
    model.kept_prompts.max_bytes = 2 * one
    whole = [text(model, pair) for pair in ((0, 1), (1, 2), (0, 2))]
    assert model.kept_prompts.tasks == [0, 2]
    assert model.kept_prompts.nbytes == 2 * one
    # A batch of more tasks than fit is right all the same, and computes its own anew.
    model.kept_prompts.max_bytes = 0
    model.kept_prompts.clear()
    ran = len(model.ran)
    np.testing.assert_array_equal(text(model, (0, 2)), whole[2])
    np.testing.assert_array_equal(text(model, (0, 2)), whole[2])
    assert len(model.ran) == ran + 2
    assert model.kept_prompts.tasks == []
    model.kept_prompts.max_bytes = 10 * one
    text(model)
    model.kept_prompts.clear()
    assert model.kept_prompts.nbytes == 0
