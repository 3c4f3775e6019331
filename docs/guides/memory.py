# %% [markdown]
# # Presets, precision, memory
#
# Where a base comes from, in which precision it computes, and what a step takes. The base is always
# frozen, so its weights may be small and coarse; what is trained stays float32.
#
# ```
# pip install keras-mpt torch
# ```
#
# ## Presets
#
# | from | how |
# |---|---|
# | keras-hub's presets, from Kaggle or Hugging Face | `keras_hub.models.GPT2CausalLM.from_preset("gpt2_base_en")`, `"hf://keras/…"`, `"kaggle://…"` |
# | a Hugging Face folder or name of transformers' | `keras_mpt.backbone_from_pretrained(folder)`: transformers' numbers, of which keras-hub's own reading [drops some](../reliability.md#a-base-that-is-not-what-it-was) |
# | the same, a masked language model with its head | `keras_mpt.masked_lm_from_pretrained(folder)` |
# | T5, which keras-hub does not read | `keras_mpt.t5_from_pretrained(folder)` |
# | a GGUF file | `keras_mpt.convert_gguf("model.gguf", "folder")`, then as above |
# | your own | any functional model that looks `token_ids` up once: [which](../families.md) |
#
# A folder on disk is best for what shall be repeated: names on a hub may change what is behind them.

# %%
import os

os.environ["KERAS_BACKEND"] = "torch"  # Before Keras is imported, which else takes TensorFlow.

import keras_hub
import numpy as np

import keras_mpt


def new_backbone(dtype="float32"):
    """A GPT-2 of random weights: 4 blocks, 256 wide."""
    return keras_hub.models.GPT2Backbone(
        vocabulary_size=4000,
        num_layers=4,
        num_heads=4,
        hidden_dim=256,
        intermediate_dim=1024,
        max_sequence_length=128,
        dropout=0.0,
        dtype=dtype,
    )


def mebibytes(backbone):
    """What its weights take."""
    return sum(weight.value.nbytes for weight in backbone.weights) / 2**20


config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=20, num_tasks=3, seed=0
)
ids = np.random.default_rng(0).integers(0, 4000, (4, 32))
x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": [0, 1, 2, 0]}
exact = new_backbone()
wanted = keras_mpt.prompt_tune(exact, config).predict(x, verbose=0)


def like_exact(dtype="float32"):
    """A model of the same weights and prompts."""
    backbone = new_backbone(dtype)
    backbone.set_weights(exact.get_weights())
    return keras_mpt.prompt_tune(backbone, config)


def difference(model):
    """Of its logits from float32's, as a share of the largest."""
    found = np.asarray(model.predict(x, verbose=0), "float32")
    return np.abs(found - wanted).max() / np.abs(wanted).max()


print(f"float32: {mebibytes(exact):.1f} MiB")

# %% [markdown]
# ## bfloat16
#
# Half of the memory. Prompts stay float32, and so do losses. On processors without bfloat16 of their
# own it is slower ([measured](../benchmarks/README.md#bfloat16-and-computing-states-again)).

# %%
half = like_exact("bfloat16")
print(f"bfloat16: {mebibytes(half.backbone):.1f} MiB, logits off by {difference(half):.1%}")
print(half.prompt.prompt_embeddings.dtype, "prompts")

# %% [markdown]
# ## Quantized
#
# `quantize` makes the backbone's weights int8 or int4, in place; the prompt and heads stay as they are,
# and train on top of it: gradients pass through.

# %%
small = like_exact()
small.quantize("int8")
print(f"int8: {mebibytes(small.backbone):.1f} MiB, logits off by {difference(small):.1%}")
before = small.prompt.get_weights()[0].copy()
small.fit(x, np.roll(ids, -1, axis=1), epochs=2, verbose=0)
print("the prompt is trained:", not np.array_equal(before, small.prompt.get_weights()[0]))

# %% [markdown]
# A quantized backbone is not exported: quantize the exported file with its runtime's tool instead.
#
# ## What a step takes
#
# Counted from shapes before anything is on a device ([how near it is](../scaling.md#what-fits)). Of a
# frozen base the activations are most of it, not the weights.

# %%
for batch_size, length in ((4, 32), (32, 128)):
    print(keras_mpt.estimate_memory(exact, config, batch_size=batch_size, length=length))

# %% [markdown]
# Where it does not fit, in this order: fewer rows in a batch; bfloat16; `prompt_tune(…, remat=0.5)` or
# `remat=True`, which runs blocks of a causal model once more on the way back; a backbone spread over
# devices.
#
# ## GPUs and several devices
#
# Nothing has to be said for one GPU: install the GPU build of your backend, and Keras uses it.
# `model.compile(jit_compile=True)` makes language models on TensorFlow faster still. Several devices,
# several processes, on each backend: [scaling](../scaling.md).
#
# **What you can do now:** load any base in the precision that fits, and know beforehand what a step
# takes.
