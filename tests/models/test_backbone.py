"""A prompt-tuned backbone: its outputs, and that nothing but the prompt is ever trained."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.fitting.tokenization import tokenize
from tests import tiny
from tests.marks import only_eager, slow_on_tensorflow

LENGTH, TASKS = 3, 2


def config(**kwargs):
    """A multitask config whose prompts differ from task to task."""
    defaults = {"num_virtual_tokens": LENGTH, "num_tasks": TASKS, "task_init": "normal"}
    return keras_mpt.MultitaskPromptTuningConfig(**defaults | kwargs)


def flat(outputs):
    """The outputs as NumPy arrays."""
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


@pytest.mark.parametrize(("kind", "submodules"), [("bert", 1), ("llama", 1), ("t5", 2)])
def test_outputs_are_the_splice_s_with_each_row_s_own_prompt(kind, submodules):
    backbone = tiny.backbone(kind)
    model = keras_mpt.models.PromptTunedBackbone(
        backbone, config(num_transformer_submodules=submodules)
    )
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    weights = {k: v.astype("float64") for k, v in model.prompt.get_peft_state_dict().items()}
    x, ids = tiny.inputs(backbone), [1, 0, 1, 1]
    prompts = np.stack(
        [
            weights["prompt_embeddings"]
            * (weights["prefix_task_cols"][k] @ weights["prefix_task_rows"][k])
            for k in ids
        ]
    ).astype("float32")
    expected = model.splice.user_positions(model.splice(x, ops.convert_to_tensor(prompts)))
    for ours, theirs in zip(flat(model({**x, "task_ids": ids})), flat(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    shapes = [v.shape for v in keras.tree.flatten(backbone(x))]
    assert [v.shape for v in flat(model({**x, "task_ids": ids}))] == [tuple(s) for s in shapes]


def test_prompt_positions_on_request():
    backbone = tiny.backbone("gpt2")
    model = keras_mpt.models.PromptTunedBackbone(backbone, config(), return_prompt_positions=True)
    x = {**tiny.inputs(backbone), "task_ids": 1}
    longer = flat(model(x))[0]
    model.return_prompt_positions = False
    assert longer.shape == (4, LENGTH + 6, tiny.WIDTH)
    np.testing.assert_array_equal(longer[:, LENGTH:], flat(model(x))[0])


def test_start_token_stays_in_front_by_default_and_peft_s_order_on_request():
    backbone = tiny.backbone("bert")
    x = {**tiny.inputs(backbone), "task_ids": 0}
    outputs = {}
    for position in (None, "after_start", "before"):
        keras.utils.set_random_seed(0)
        model = keras_mpt.prompt_tune(backbone, config(prompt_position=position))
        outputs[position] = model(x)["pooled_output"]
    outputs = {k: ops.convert_to_numpy(v) for k, v in outputs.items()}
    np.testing.assert_array_equal(outputs[None], outputs["after_start"])
    assert np.abs(outputs["before"] - outputs["after_start"]).max() > 1e-3


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        pytest.param("roberta", marks=only_eager),
        pytest.param("llama", marks=slow_on_tensorflow),
        pytest.param("t5", marks=only_eager),
    ],
)
def test_training_changes_the_prompt_and_no_bit_of_the_backbone(kind):
    backbone = tiny.backbone(kind)
    model = keras_mpt.prompt_tune(backbone, config(num_transformer_submodules=1))
    frozen = [ops.convert_to_numpy(v) for v in backbone.weights]
    before = model.prompt.get_peft_state_dict()
    x = {**tiny.inputs(backbone), "task_ids": [0, 1, 1, 0]}
    # Random, since the loss to constants has no gradient through a last layer norm.
    rng = np.random.default_rng(0)
    targets = keras.tree.map_structure(
        lambda output: rng.normal(size=output.shape), model.predict(x, verbose=0)
    )
    model.compile("adam", keras.tree.map_structure(lambda _: "mse", targets))
    model.fit(x, targets, epochs=2, verbose=0)
    for variable, value in zip(backbone.weights, frozen, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    for name, value in model.prompt.get_peft_state_dict().items():
        assert (value != before[name]).all(), name
    assert [v.path for v in model.trainable_variables] == [f"prompt/{name}" for name in before]


def test_one_ordinary_prompt_needs_no_task_ids():
    backbone = tiny.backbone("gpt2")
    model = keras_mpt.prompt_tune(backbone, keras_mpt.PromptTuningConfig(num_virtual_tokens=LENGTH))
    x = tiny.inputs(backbone)
    prompt = model.prompt.get_peft_state_dict()["prompt_embeddings"]
    expected = model.splice(x, ops.convert_to_tensor(np.repeat(prompt[None], 4, axis=0)))
    np.testing.assert_array_equal(flat(model(x))[0], flat(expected)[0][:, LENGTH:])
    with pytest.raises(ValueError, match=r"with unknown \['task_ids'\]"):
        model({**x, "task_ids": 0})


def test_segment_ids_default_to_zeros():
    backbone = tiny.backbone("bert")
    model = keras_mpt.prompt_tune(backbone, config())
    x = {**tiny.inputs(backbone), "task_ids": 0}
    x["segment_ids"] = np.zeros_like(x["token_ids"])
    without = {k: v for k, v in x.items() if k != "segment_ids"}
    for given, left_out in zip(flat(model(x)), flat(model(without)), strict=True):
        np.testing.assert_array_equal(given, left_out)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=only_eager)])
def test_half_precision_backbone_keeps_a_float32_prompt(dtype):
    backbone = tiny.backbone("gpt2", dtype=dtype)
    model = keras_mpt.prompt_tune(backbone, config())
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    outputs = model({**tiny.inputs(backbone), "task_ids": 0})
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype


def test_the_user_s_config_is_left_as_it_was():
    given = config()
    model = keras_mpt.prompt_tune(tiny.backbone("albert"), given)
    assert (given.token_dim, given.prompt_position) == (None, None)
    assert (model.config.token_dim, model.config.prompt_position) == (8, "after_start")


def test_symbolic_call_inside_a_functional_model():
    backbone = tiny.backbone("gpt2")
    model = keras_mpt.prompt_tune(backbone, config())
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    inputs["task_ids"] = keras.Input((), dtype="int32", name="task_ids")
    outer = keras.Model(inputs, model(inputs) * 2.0)
    x = {**tiny.inputs(backbone), "task_ids": np.array([0, 1, 1, 0])}
    np.testing.assert_allclose(outer.predict(x, verbose=0), 2 * flat(model(x))[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_language_models_give_the_base_s_logits_of_user_positions(kind):
    backbone = tiny.backbone(kind)
    task_type = "CAUSAL_LM" if kind == "gpt2" else "SEQ_2_SEQ_LM"
    model = keras_mpt.prompt_tune(backbone, config(task_type=task_type))
    x = {**tiny.inputs(backbone), "task_ids": 1}
    hidden = keras_mpt.models.PromptTunedBackbone(backbone, model.config, initialize=False)
    hidden.prompt.set_peft_state_dict(model.prompt.get_peft_state_dict())
    outputs = hidden(x)
    states = outputs if kind == "gpt2" else outputs["decoder_sequence_output"]
    table = ops.convert_to_numpy(backbone.token_embedding.embeddings)
    expected = ops.convert_to_numpy(states).astype("float64") @ table.T
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, atol=1e-5)
    assert model.config.submodules == (1 if kind == "gpt2" else 2)


def test_the_task_type_is_filled_in_and_another_is_refused():
    backbone = tiny.backbone("bart")
    model = keras_mpt.models.PromptTunedSeq2SeqLM(backbone, config())
    assert (model.config.task_type, model.config.submodules) == ("SEQ_2_SEQ_LM", 2)
    with pytest.raises(ValueError, match="`task_type` should be 'SEQ_2_SEQ_LM' or None for this"):
        keras_mpt.models.PromptTunedSeq2SeqLM(backbone, config(task_type="CAUSAL_LM"))


def test_weights_of_rows_multiply_those_of_a_language_model_s_tokens():
    backbone = tiny.backbone("gpt2")
    tokens = tiny.inputs(backbone)

    def preprocessor(x):
        return tokens, tokens["token_ids"], tokens["padding_mask"]

    model = keras_mpt.prompt_tune(
        backbone, config(task_type="CAUSAL_LM"), preprocessor=preprocessor
    )
    x = {"text": ["a", "b", "c", "d"], "task_ids": 0}
    weights = np.array([1, 2, 0, 3])
    _, y, found = tokenize(model.model_inputs, x, None, weights)
    np.testing.assert_array_equal(y, tokens["token_ids"])
    np.testing.assert_array_equal(found, tokens["padding_mask"] * weights[:, None])
