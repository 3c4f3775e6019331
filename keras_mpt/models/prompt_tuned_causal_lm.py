"""A causal language model with prompts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.decoding.compiled import compiled
from keras_mpt.decoding.kept_prompts import KeptPrompts, sample_of
from keras_mpt.models.language_model import PromptTunedLanguageModel
from keras_mpt.prompts.distinct import distinct_tasks
from keras_mpt.splicing.prefix_cache import prefix_cache


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedCausalLM(PromptTunedLanguageModel):
    """A frozen keras-hub `CausalLM` with prompts: logits of the user's positions alone.

    Nothing before a token depends on it here, so a prompt's keys and values are computed once for
    each task of a batch and shared by the task's rows, in `fit`, `evaluate`, `predict` and calls
    alike. Losses, gradients and logits are those of a prompt per row, to rounding. Under dropout
    the rows of a task also share what is dropped in their prompt.

    Args:
        backbone: a `keras_hub.models.Backbone` that keras-hub has a `CausalLM` for. It is set to
            `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        share_prompts: whether a batch computes each task's prompt once. `"auto"` does where that
            saves work, and where keras-hub's cached path computes what its model does: not for
            GPT-NeoX, RWKV-7, Qwen 3.5, Falcon (left padding), a prompt behind the start token or
            `position_ids` of your own, nor for the training of experts that are kept in balance by
            a loss of their own (Mixtral, Qwen MoE). `True` is an error where it never can; `False`
            gives each row its own prompt. Defaults to `"auto"`.
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

    def __init__(
        self,
        backbone: Any,
        config: PromptTuningConfig,
        share_prompts: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        if share_prompts not in ("auto", True, False):
            raise ValueError(
                "`share_prompts` should be 'auto', True or False. Received: "
                f"share_prompts={share_prompts!r}"
            )
        super().__init__(backbone, config, **kwargs)
        self.share_prompts = share_prompts
        if share_prompts is True and not self._can_share():
            raise ValueError(
                "`share_prompts` should be 'auto' or False where keras-hub keeps no keys and "
                "values that a prompt in front could be put into. Received: share_prompts=True "
                f"for a {type(backbone).__name__}, prompt_position={self.config.prompt_position!r}"
            )

    def call_with_states(
        self,
        inputs: dict[str, Any],
        layers: tuple[int, ...],
        prompt_positions: bool = False,
        training: bool | None = None,
        prompt: Any = None,
    ) -> tuple[Any, list[Any]]:
        """Logits (B, S, V), and hidden states. To give a prompt's, each row computes its own."""
        own_positions = set(inputs) - {"token_ids", "padding_mask", "task_ids"}
        is_shared = self.share_prompts is not False and self._can_share(training)
        if prompt_positions or own_positions or not is_shared:
            return super().call_with_states(inputs, layers, prompt_positions, training, prompt)
        token_ids = inputs["token_ids"]
        prompt = self.prompt if prompt is None else prompt
        tasks, rows, poison = _distinct_prompts(prompt, inputs.get("task_ids"), token_ids)
        is_saving = tasks.shape[0] is None or tasks.shape[0] != token_ids.shape[0]
        if self.share_prompts == "auto" and not is_saving:  # A prompt for every row either way.
            return super().call_with_states(inputs, layers, prompt_positions, training, prompt)
        assert self.prefix_cache is not None
        cache = self.prefix_cache.after(prompt(tasks))
        mask = inputs["padding_mask"]
        logits, states = self.prefix_cache.behind(token_ids, mask, cache, rows, poison, layers)
        return ops.cast(logits, self.logits_dtype), states

    def _can_share(self, training: bool | None = False) -> bool:
        cache = self.prefix_cache
        return cache is not None and cache.takes_padding and not (training and cache.adds_losses)

    def find_caches(self, task: Any) -> None:
        """Finds out whether keys and values can be kept behind the prompt's."""
        self.prefix_cache = prefix_cache(task, self.splice)
        self.kept_prompts = KeptPrompts()

    def set_sampler(self, sampler: Any) -> None:
        """Takes a keras-hub sampler or its name, and forgets what was compiled."""
        super().set_sampler(sampler)
        if self.prefix_cache is not None:
            self.kept_prompts.compute = compiled(self, self.prefix_cache.after)
            self.kept_prompts.sample = compiled(self, lambda _: sample_of(self.backbone.weights))

    @property
    def keeps_cache(self) -> bool:
        """Whether the keys and values of prompt and text are kept from token to token."""
        return self.prefix_cache is not None

    def prompts_of_batch(self, task_ids: Any, rows: int) -> dict[str, Any]:
        """The caches of the batch's different prompts, kept or computed, and which each row has."""
        found = super().prompts_of_batch(task_ids, rows)
        ids = found.pop("prompt_ids")
        tasks = [0] if task_ids is None else ids
        return {**found, "prompt_cache": self.kept_prompts.get(tasks, self.prompt(ids))}

    def step_of_cache(self, tokens: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """Logits and states of tokens (B, n) that stand behind `index` others, and the cache."""
        assert self.prefix_cache is not None
        return self.prefix_cache.step(tokens, cache, index)

    def _cache_of_text(
        self, text_ids: Any, prompts: dict[str, Any], room: int = 0
    ) -> tuple[Any, Any]:
        """The states of each row's text, and the keys and values of its prompt and text."""
        assert self.prefix_cache is not None
        more = text_ids.shape[1] + room
        cache = self.prefix_cache.for_rows(prompts["prompt_cache"], prompts["prompt_rows"], more)
        return self.prefix_cache.step(text_ids, cache, 0, with_logits=False)[1:]

    def folded_arguments(self, task: int) -> dict[str, Any]:
        """A folded model shares prompts as this one does."""
        return {**super().folded_arguments(task), "share_prompts": self.share_prompts}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "share_prompts": self.share_prompts}


def _distinct_prompts(prompt: Any, task_ids: Any, token_ids: Any) -> tuple[Any, Any, Any]:
    """What to ask a prompt layer for, which of it each row has, and NaN for wrong ids."""
    batch_size = ops.shape(token_ids)[0]
    if task_ids is None:
        rows = ops.zeros((batch_size,), "int32")
        return prompt.indices(1), rows, ops.zeros((batch_size,))
    task_ids = ops.broadcast_to(task_ids, (batch_size,))
    return distinct_tasks(task_ids, prompt.num_tasks)
