# %% [markdown]
# # Serving and export
#
# Four ways from a trained model to where it is asked: many adapters in one process, a file that other
# runtimes open, a prompt for a language model's server, and one task as an ordinary prompt. The model
# is a tiny random one, so that each can be compared with the model itself in seconds; what holds for
# real ones is on the pages that are linked.
#
# ```
# pip install "keras-mpt[export]" torch
# export KERAS_BACKEND=torch  # as in this run; Keras's own default is TensorFlow
# ```

# %%
import keras_hub
import numpy as np
import onnxruntime

import keras_mpt

backbone = keras_hub.models.BertBackbone(
    vocabulary_size=100,
    num_layers=1,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=64,
)
config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="SEQ_CLS",
    num_virtual_tokens=4,
    num_tasks=2,
    task_names=["tone", "topic"],
    label_names={"tone": ["bad", "good"], "topic": ["arts", "law", "sport"]},
)
model = keras_mpt.prompt_tune(backbone, config, num_classes={"tone": 2, "topic": 3})
ids = np.random.default_rng(0).integers(5, 100, (3, 7))
tokens = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}
x = {**tokens, "task_ids": ["topic", "tone", "topic"]}
logits = model.predict(x, verbose=0)


def difference(found, wanted):
    """The largest, as a share of the largest logit; −1e9 is a class that a row's task lacks."""
    real = wanted > -1e8
    return np.abs(found - wanted)[real].max() / np.abs(wanted[real]).max()


# %% [markdown]
# ## Many adapters, one backbone
#
# A folder of adapters, each of its own make: rows of any of them go in one batch. An adapter is read
# when it is first asked for, and may be replaced while others answer.

# %%
model.save_adapter("adapters/news", overwrite=True)
another = keras_mpt.prompt_tune(
    backbone,
    keras_mpt.PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=6, label_names=["earnest", "irony"]
    ),
    num_classes=2,
)
another.save_adapter("adapters/irony", overwrite=True)

bank = keras_mpt.PromptBank(backbone, "adapters")
names = ["news/topic", "news/tone", "irony"]
print(bank.predict_labels(tokens, adapter=names))
print(f"off by {difference(bank.predict(tokens, adapter=names)[:2], logits[:2]):.0e}")

# %% [markdown]
# [The bank's page](../prompt_bank.md) has what it costs, and a server around it to copy
# (`make serve`).
#
# ## A file for another runtime
#
# TensorFlow's SavedModel, ONNX, OpenVINO, LiteRT or PyTorch's: [what each backend
# writes](../serving.md). Tasks go in by number, and one batch may mix them.

# %%
model.export("classifier.onnx", "onnx", overwrite=True, verbose=False)
session = onnxruntime.InferenceSession("classifier.onnx")
inputs = {name: value.astype("int32") for name, value in tokens.items()}
inputs["task_ids"] = np.array([1, 0, 1], "int32")
(found,) = session.run(["logits"], inputs)
print(f"off by {difference(found, logits):.0e}")

# %% [markdown]
# ## A prompt for a language model's server
#
# vLLM, SGLang, TensorRT-LLM and others run the backbone themselves and take the prompt: as a part of a
# request, or as a table of all tasks ([each one's way](../other_servers.md)).

# %%
gpt2 = keras_hub.models.GPT2Backbone(
    vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32
)
lm = keras_mpt.prompt_tune(
    gpt2,
    keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=2, task_names=["tone", "topic"]
    ),
)
lm.export_prompt_embeds("topic", "topic.pt", overwrite=True)
lm.export_prompt_table("prompts.npy", overwrite=True)
print(np.load("prompts.npy").shape, "tasks, tokens, width")

# %% [markdown]
# ## One task as an ordinary prompt
#
# `fold` gives a task as a model of one prompt, P ∘ (cols · rows) multiplied out: PEFT's
# `PROMPT_TUNING`, which knows no tasks.

# %%
topic = model.fold("topic")
off = difference(topic.predict(tokens, verbose=0)[[0, 2]], logits[[0, 2]])
print(topic.config.peft_type, f"off by {off:.0e}")

# %% [markdown]
# **What you can do now:** serve any number of tasks from one process, hand the model to a runtime
# without Keras, or the prompt to a server of language models.
