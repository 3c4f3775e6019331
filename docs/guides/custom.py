# %% [markdown]
# # Callbacks, loops and layers of your own
#
# A prompt-tuned model is a Keras model: callbacks, loops of your own, and functional models around its
# layers work. The model here is tiny and random, and runs in seconds.
#
# ```
# pip install "keras-mpt[data]" torch
# ```

# %%
import os

os.environ["KERAS_BACKEND"] = "torch"  # Before Keras is imported, which else takes TensorFlow.

import keras
import keras_hub
import numpy as np

import keras_mpt

keras.utils.set_random_seed(0)
backbone = keras_hub.models.BertBackbone(
    vocabulary_size=100,
    num_layers=2,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=64,
)
config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["tone", "topic"]
)
model = keras_mpt.prompt_tune(backbone, config, num_classes={"tone": 2, "topic": 3})
rng = np.random.default_rng(0)


def rows(classes, n=32):
    """Tokens whose first tells the class."""
    labels = rng.integers(0, classes, n)
    ids = rng.integers(10, 100, (n, 6))
    ids[:, 1] = labels
    return {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}, labels


data = {"tone": rows(2), "topic": rows(3)}
validation = keras_mpt.stack_tasks({"tone": rows(2), "topic": rows(3)})
mix = keras_mpt.TaskMix(data, batch_size=16)

# %% [markdown]
# ## Callbacks
#
# Keras's own see every task's loss and metrics under its name. Ours: `BestWeights` ends with the best
# mean over tasks, `ResumeTraining` goes on where a run was cut, to the bit, `StopWhenLearned` ends a
# training whose rows are learned, `ForgettingMonitor` watches tasks that are not trained.

# %%
stop = keras.callbacks.EarlyStopping("val_topic_accuracy", patience=5)
best = keras_mpt.recipes.BestWeights()
resume = keras_mpt.ResumeTraining("run", mix)
history = model.fit(
    mix, epochs=4, validation_data=validation, callbacks=[stop, best, resume], verbose=0
)
print(sorted(name for name in history.history if name.startswith("val_")))

# %% [markdown]
# The same call in a new process goes on after the last step that was written. Here all epochs are
# done, so one more is asked for:

# %%
again = model.fit(mix, epochs=5, validation_data=validation, callbacks=[resume], verbose=0)
print(again.epoch)

# %% [markdown]
# ## A loop of your own
#
# On PyTorch a loop is PyTorch's. `prepared` makes what `fit` would make of a batch, and `compute_loss`
# is the loss that `compile` was given; frozen variables have no gradient already.

# %%
import torch

optimizer = torch.optim.Adam([v.value for v in model.trainable_variables], lr=0.01)
mix.on_epoch_begin()
for step in range(len(mix)):
    x, y, weights = model.prepared(*mix[step])
    optimizer.zero_grad()
    loss = model.compute_loss(x, torch.as_tensor(y), model(x, training=True), weights)
    loss.backward()
    optimizer.step()
mix.on_epoch_end()
print(f"{float(loss.detach()):.2f}")

# %% [markdown]
# `model.train_on_batch(x, y)` is a step on any backend. P and the factors at two speeds, with any
# optimizer's class: `keras_mpt.two_speed_optimizer`.
#
# ## The bare layer in a model of your own
#
# `MultitaskPromptEmbedding` knows nothing of backbones: task ids in, prompts (B, L, d) out. A functional
# model of two inputs around it, here with a sum over the prompt and the text's mean:

# %%
task_ids = keras.Input((), dtype="int32", name="task_ids")
features = keras.Input((16,), name="features")
layer = keras_mpt.MultitaskPromptEmbedding(num_virtual_tokens=4, token_dim=16, num_tasks=2)
gates = keras.ops.mean(layer(task_ids), axis=1)
heads = keras_mpt.models.TaskHeads([2, 3])
functional = keras.Model(
    {"task_ids": task_ids, "features": features}, heads(features * (1 + gates), task_ids)
)
functional.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="adam"
)
batch = {"task_ids": np.array([0, 1, 1]), "features": rng.normal(size=(3, 16))}
functional.fit(batch, np.array([1, 2, 0]), verbose=0)
print(functional.predict(batch, verbose=0).shape)

# %% [markdown]
# It saves and loads as any Keras model, on any backend:

# %%
functional.save("functional.keras")
loaded = keras.saving.load_model("functional.keras")
same = np.allclose(loaded.predict(batch, verbose=0), functional.predict(batch, verbose=0))
print("the same after loading:", same)

# %% [markdown]
# ## What stands after the backbone
#
# A task type of your own needs no new class: `FEATURE_EXTRACTION` gives the frozen backbone's states
# under each row's prompt, without the prompt's positions, for any layers behind them.

# %%
extractor = keras_mpt.prompt_tune(
    backbone,
    keras_mpt.MultitaskPromptTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=4, num_tasks=2
    ),
)
x, _ = data["tone"]
states = extractor({**x, "task_ids": np.zeros(32, "int32")})
print({name: tuple(value.shape) for name, value in states.items()})

# %% [markdown]
# **What you can do now:** use Keras's tools around prompts, write the loop yourself, and put prompts
# into models that this library does not know.
