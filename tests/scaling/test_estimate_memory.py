"""What a step takes by `estimate_memory`, beside what was measured, and by hand."""

import keras
import keras_hub
import pytest

import keras_mpt
from keras_mpt.scaling.estimate_memory import MemoryEstimate

# Peaks of three steps less what was there before, in MiB, of the pages of benchmarks (weights are
# not in them): TensorFlow, JAX, PyTorch.
MEASURED = {
    ("GPT2", 20, 16, 64): (661, 616, 677),
    ("GPT2", 100, 16, 64): (792, 785, 819),
    ("GPT2", 100, 64, 64): (2401, 2888, 2806),
    ("Llama", 100, 16, 64): (695, 764, 727),
    ("Bert", 20, 32, 48): (663, 651, 434),
}
BACKEND = ("tensorflow", "jax", "torch").index(keras.backend.backend())


def backbone(family):
    """A backbone of the benchmarks' shape, without values."""
    width, vocabulary = (384, 30522) if family == "Bert" else (512, 8000)
    given = {"vocabulary_size": vocabulary, "num_layers": 6, "hidden_dim": width}
    given["intermediate_dim"] = width * 11 // 4 if family == "Llama" else 4 * width
    if family == "Llama":
        given |= {"num_query_heads": 8, "num_key_value_heads": 4}
    else:
        given["num_heads"] = 12 if family == "Bert" else 8
    return getattr(keras_hub.models, f"{family}Backbone")(**given)


def config(length, task_type="CAUSAL_LM", **kwargs):
    """Four tasks."""
    return keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=length, **{"num_tasks": 4, **kwargs}
    )


@pytest.mark.parametrize("shape", MEASURED, ids=lambda shape: "-".join(map(str, shape)))
def test_measured_peaks_are_within_a_fifth(shape):
    family, length, rows, tokens = shape
    task_type = "SEQ_CLS" if family == "Bert" else "CAUSAL_LM"
    with keras.StatelessScope(initialize_variables=False):
        found = keras_mpt.estimate_memory(backbone(family), config(length, task_type), rows, tokens)
    measured = MEASURED[shape][BACKEND]
    assert abs((found.total - found.weights) / 2**20 / measured - 1) < 0.2


def test_weights_and_prompts_by_hand():
    with keras.StatelessScope(initialize_variables=False):
        made = backbone("GPT2")
        small = keras_mpt.estimate_memory(made, config(20), 16, 64)
        many = keras_mpt.estimate_memory(made, config(20, num_tasks=100_000), 16, 64)
    block = 4 * (512 * 512 + 512) + 2 * 4 * 512 * 512 + 5 * 512 + 4 * 512
    numbers = (8000 + 1024) * 512 + 6 * block + 2 * 512
    assert small.weights == 4 * numbers
    assert small.prompts == 4 * 4 * (20 * 512 + 4 * (20 + 512))
    assert many.prompts == 4 * 4 * (20 * 512 + 100_000 * (20 + 512))
    # A batch has no more tasks than rows, however many there are.
    assert many.activations / small.activations < 1.3


def has_values(made):
    """Whether Keras has made any of a backbone's values."""
    return any(v._value is not None for v in made.variables)


@pytest.mark.parametrize("is_within", [True, False])
def test_a_backbone_of_shapes_alone_is_never_filled(is_within):
    """Keras would fill it, however large, when the next model is built."""
    with keras.StatelessScope(initialize_variables=False):
        made = backbone("GPT2")
        if is_within:
            keras_mpt.estimate_memory(made, config(20), 16, 64)
    if not is_within:
        keras_mpt.estimate_memory(made, config(20), 16, 64)
    with keras.StatelessScope():
        other = keras.Variable("ones", shape=(2,))
    assert other._value is not None
    assert not has_values(made)


def test_a_backbone_that_waits_for_its_values_gets_them():
    with keras.StatelessScope():
        made = backbone("GPT2")
        keras_mpt.estimate_memory(made, config(20), 16, 64)
    assert has_values(made)


def test_half_the_size_is_half_the_bytes():
    whole, half = (
        keras_hub.models.GPT2Backbone(
            vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
            dtype=dtype,
        )
        for dtype in ("float32", "bfloat16")
    )  # fmt: skip
    found = [keras_mpt.estimate_memory(b, config(4), 4, 8) for b in (whole, half)]
    assert found[1].weights * 2 == found[0].weights
    assert found[1].activations * 2 == pytest.approx(found[0].activations, abs=2)


def test_it_reads_as_a_person_would_say_it():
    estimate = MemoryEstimate(3 * 2**30, 5 * 2**20, 2**29, 0, 2**20)
    assert repr(estimate) == (
        "MemoryEstimate(3.5 GiB: weights 3.0 GiB, prompts 5 MiB, activations 512 MiB, logits 0 "
        "MiB, overhead 1 MiB)"
    )


@pytest.mark.parametrize("sizes", [(0, 8), (4, 0), (True, 8), (4, 2.5)])
def test_sizes_that_are_none(sizes):
    with keras.StatelessScope(initialize_variables=False), pytest.raises(ValueError) as raised:
        keras_mpt.estimate_memory(backbone("GPT2"), config(4), *sizes)
    name, value = next(
        (n, v)
        for n, v in zip(("batch_size", "length"), sizes, strict=True)
        if v is True or not isinstance(v, int) or v < 1
    )
    assert str(raised.value) == f"`{name}` should be a positive integer. Received: {name}={value}"
