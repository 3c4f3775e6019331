"""A causal language model with prompts."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.config_values import TaskType
from keras_mpt.models.language_model import PromptTunedLanguageModel
from keras_mpt.splicing.prefix_cache import prefix_cache


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedCausalLM(PromptTunedLanguageModel):
    """A frozen keras-hub `CausalLM` with prompts: logits of the user's positions alone.

    Args:
        backbone: a `keras_hub.models.Backbone` that keras-hub has a `CausalLM` for. It is set to
            `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        **kwargs: `preprocessor`, `tokenizer`, `initialize`, `name`, `dtype`: see
            `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of `token_ids` and `padding_mask`, each (B, S) integer, and `task_ids`, (B,) or
            scalar integer, or task names.
        training: bool. Defaults to `None`.

    Returns:
        Logits, float (B, S, V).

    Raises:
        ValueError: a backbone without such a task, or wrong inputs.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3
        )
        model = keras_mpt.models.PromptTunedCausalLM(backbone, config)
        ids = np.array([[5, 6, 7]])
        logits = model({"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": [1]})
        assert logits.shape == (1, 3, 100)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT `PeftModelForCausalLM`.
    """

    task_name = "CausalLM"
    task_type = TaskType.CAUSAL_LM

    def find_caches(self, task: Any) -> None:
        """Finds out whether keys and values can be kept behind the prompt's."""
        self.prefix_cache = prefix_cache(task, self.splice)
