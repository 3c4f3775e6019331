# %% [markdown]
# # Coming from PEFT
#
# What you know from `peft.MultitaskPromptTuningConfig` and `peft.get_peft_model` is here under the
# same names, and checkpoints go both ways. This guide opens an adapter that PEFT wrote, shows that the
# logits are the same, trains on, and gives it back. The model is a tiny random GPT-2, so that all of it
# runs in seconds; [every family](../parity.md) is measured in the same way.
#
# ```
# pip install keras-mpt torch peft transformers
# export KERAS_BACKEND=torch  # as in this run; Keras's own default is TensorFlow
# ```

# %%
import keras_hub
import numpy as np
import peft
import torch
import transformers

import keras_mpt

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
settings = transformers.GPT2Config(
    vocab_size=200,
    n_positions=64,
    n_embd=32,
    n_layer=2,
    n_head=2,
    initializer_range=0.2,
    bos_token_id=0,
    eos_token_id=0,
)
transformers.GPT2LMHeadModel(settings).save_pretrained("base")

# %% [markdown]
# ## In PEFT

# %%
fields = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "num_tasks": 3, "num_ranks": 2}
theirs = peft.get_peft_model(
    transformers.GPT2LMHeadModel.from_pretrained("base"),
    peft.MultitaskPromptTuningConfig(**fields),
).eval()
with torch.no_grad():  # As if it had been trained.
    for weight in theirs.prompt_encoder.parameters():
        weight.normal_()
theirs.save_pretrained("adapter")

# %% [markdown]
# ## The same here
#
# The base is a folder of transformers, read by `backbone_from_pretrained`, which gives transformers'
# numbers; keras-hub's own `from_preset` [drops some](../reliability.md#a-base-that-is-not-what-it-was).
# The adapter is a folder of PEFT.

# %%
backbone = keras_mpt.backbone_from_pretrained("base")
base = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
ours = keras_mpt.load_adapter(base, "adapter")

ids = np.random.default_rng(0).integers(1, 200, (4, 7))
tasks = np.array([0, 2, 1, 2])
x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": tasks}
with torch.no_grad():
    wanted = theirs(input_ids=torch.tensor(ids), task_ids=torch.tensor(tasks)).logits.numpy()
found = ours.predict(x, verbose=0)
print("PEFT's", wanted.shape, "ours", found.shape)
print(f"largest difference {np.abs(found - wanted[:, 4:]).max():.0e}")

# %% [markdown]
# Two things to see. PEFT gives logits at the prompt's positions too; here they are **the user's
# positions alone**, so nothing has to be cut off. And a task is a number or, where the config has
# `task_names`, a name.
#
# ## Argument by argument
#
# | PEFT | here |
# |---|---|
# | `get_peft_model(model, config)` | `keras_mpt.prompt_tune(model, config)`; `model` is keras-hub's |
# | `PeftModel.from_pretrained(model, folder)` | `keras_mpt.load_adapter(model, folder)`, which trains on |
# | `model.save_pretrained(folder)` | `model.save_adapter(folder)` |
# | `task_type`, `num_virtual_tokens`, `num_tasks`, `num_ranks`, `token_dim`, `num_transformer_submodules` | the same |
# | `prompt_tuning_init` and what belongs to it | the same, and `SAMPLE_VOCAB` for many tasks too |
# | `model(input_ids=…, attention_mask=…, task_ids=…)` | `model({"token_ids": …, "padding_mask": …, "task_ids": …})` |
# | `labels` | `y` of `fit`; see below |
# | `model.print_trainable_parameters()` | the same; `model.parameter_count()` is the number, `model.summary()` the layers |
# | `num_labels` of transformers' model | `num_classes`, one number or one per task |
# | `Trainer`, or a loop | `model.fit`, `compile`, callbacks |
# | | `task_names`, `label_words`, `label_names`, `task_init`, `train_shared`, `prompt_position`, `seed` are ours, kept in a file of their own that PEFT does not read |
#
# PEFT's own file makes a config as well:

# %%
config = keras_mpt.MultitaskPromptTuningConfig.from_pretrained("adapter")
print(config.num_ranks, config.prompt_position, config.task_init)

# %% [markdown]
# An adapter of PEFT's stays as PEFT means it: prompts in front (`prompt_position="before"`) and
# factors that start as PEFT's do (`task_init="normal"`). In a new config of ours every task starts at P
# itself (`"ones"`), and encoders have the prompt behind `[CLS]`; give `"before"` where PEFT shall open
# an encoder's adapter.
#
# ## Labels
#
# transformers moves `labels` by one inside its models, so they equal the input. Keras has targets
# beside inputs: `y[:, t]` is the token *after* `token_ids[:, t]`, and what is −100 there is a
# `sample_weight` of 0 here. The loss is then the same mean. One target is PEFT's alone: the first
# token, which it has the last virtual token foretell; with −100 there the two are equal.

# %%
labels = np.roll(ids, -1, axis=1)
weights = np.ones(labels.shape, "float32")
weights[:, -1] = 0  # Nothing comes after the last token.
ours_loss = ours.evaluate(x, labels, sample_weight=weights, return_dict=True, verbose=0)
with torch.no_grad():
    for first in (ids[:, 0], -100):
        theirs_labels = ids.copy()
        theirs_labels[:, 0] = first
        theirs_loss = theirs(
            input_ids=torch.tensor(ids),
            task_ids=torch.tensor(tasks),
            labels=torch.tensor(theirs_labels),
        ).loss
        print(f"PEFT's {float(theirs_loss):.5f}")
print(f"ours   {ours_loss['loss']:.5f}")

# %% [markdown]
# Give prompts and responses as text instead, and all of that is done for you:
# `model.fit({"prompts": […], "responses": […], "task_ids": […]})`
# ([language models](language_model.ipynb)).
#
# ## Training on, and back
#
# PEFT refuses to train a loaded adapter of this kind. Here it trains, and PEFT opens what comes out.

# %%
ours.fit(x, labels, sample_weight=weights, epochs=30, verbose=0)
ours.save_adapter("trained", overwrite=True)
again = peft.PeftModel.from_pretrained(
    transformers.GPT2LMHeadModel.from_pretrained("base"), "trained"
).eval()
with torch.no_grad():
    back = again(input_ids=torch.tensor(ids), task_ids=torch.tensor(tasks)).logits.numpy()
found = ours.predict(x, verbose=0)
print(f"largest difference {np.abs(found - back[:, 4:]).max():.0e}")
print(f"moved by training: {np.abs(found - wanted[:, 4:]).max():.2f}")

# %% [markdown]
# ## What differs
#
# - **Starts.** PEFT's factors start near 0, so a `TEXT` start is lost; here each task starts as the
#   text ([the numbers](../parity.md#where-keras_mpt-does-otherwise-on-purpose)).
# - **Heads.** One per task, each with its own classes, or one shared, as in PEFT.
# - **`generate`** of an encoder-decoder uses the decoder's prompt too, which PEFT leaves out.
# - **Rates of models with scaled embeddings** (Gemma): P is kept at the model's own scale here, at
#   the file's in PEFT; files are converted, learning rates are not
#   ([why](../parity.md#scaled-embeddings)).
# - **What PEFT has none of**: teachers and distillation, sampled tasks, two learning rates, new tasks
#   from old ones, metrics per task, banks of adapters. Everything side by side, with times and memory:
#   [beside PEFT](../comparison.md).
#
# **What you can do now:** open your PEFT adapters on TensorFlow, JAX or PyTorch, train them on, and
# give them back.
