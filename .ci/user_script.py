"""What a user's type checker sees of the installed wheel; `make wheel` runs mypy on it."""

from pathlib import Path
from typing import assert_type

import keras_hub
import numpy as np

import keras_mpt
from keras_mpt.models import PromptTunedCausalLM, PromptTunedModel, PromptTunedTextClassifier

backbone = keras_hub.models.GPT2Backbone.from_preset("gpt2_base_en")
config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=20, num_tasks=2, task_names=["tone", "topic"]
)
assert_type(config.names, list[str])

model = keras_mpt.prompt_tune(backbone, config)
assert_type(model, PromptTunedModel)
assert_type(keras_mpt.load_adapter(backbone, Path("adapter")), PromptTunedModel)
assert_type(model.add_task("third", from_="tone"), int)
assert_type(model.config, keras_mpt.PromptTuningConfig)
assert_type(model.fold("tone"), PromptTunedModel)
assert_type(model.parameter_count(), int)

language_model = PromptTunedCausalLM(backbone, config)
assert_type(language_model.fold(0), PromptTunedCausalLM)
assert_type(language_model.score("It is", [" good", " bad"], task_ids="tone"), np.ndarray)
text = language_model.generate("It is", 64, task_ids="tone")
language_model.generate("It is", "tone")  # type: ignore[arg-type]

classifier = PromptTunedTextClassifier(backbone, config, num_classes={"tone": 2, "topic": 4})
assert_type(classifier.num_classes, int | list[int])
assert_type(keras_mpt.adapt(classifier, "irony", num_classes=2), PromptTunedTextClassifier)
assert_type(keras_mpt.adapt("adapter", ["irony"], base=backbone), PromptTunedModel)
classifier.fit({"text": ["fine"], "task_ids": ["tone"]}, np.array([1]), 32, verbose=0)
classifier.fit({"text": ["fine"]}, [1], batch_size="32")  # type: ignore[arg-type]
classifier.save_adapter("adapter", overwriting=True)  # type: ignore[call-arg]

layer = keras_mpt.MultitaskPromptEmbedding(20, 768, num_tasks=3)
assert_type(layer.get_peft_state_dict(), dict[str, np.ndarray])
names, similarities = keras_mpt.analysis.task_similarity(model)
assert_type(names, list[str])
