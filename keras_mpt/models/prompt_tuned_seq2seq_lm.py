"""An encoder-decoder language model with prompts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mpt.config_values import TaskType
from keras_mpt.models.language_model import PromptTunedLanguageModel
from keras_mpt.splicing.decoder_cache import DecoderCache, decoder_cache
from keras_mpt.splicing.encoder_once import EncoderOnce, encoder_once


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedSeq2SeqLM(PromptTunedLanguageModel):
    """A frozen keras-hub `Seq2SeqLM` with prompts: logits of the user's positions alone.

    Args:
        backbone: a `keras_hub.models.Backbone` that keras-hub has a `Seq2SeqLM` for. It is set to
            `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        **kwargs: `preprocessor`, `tokenizer`, `initialize`, `name`, `dtype`: see
            `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of `encoder_token_ids`, `encoder_padding_mask`, `decoder_token_ids` and
            `decoder_padding_mask`, each (B, S) integer, and `task_ids`, (B,) or scalar integer, or
            task names.
        training: bool. Defaults to `None`.

    Returns:
        Logits, float (B, S, V).

    Raises:
        ValueError: a backbone without such a task, or wrong inputs.

    Example:
        ```python
        backbone = keras_hub.models.BartBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4, num_tasks=3
        )
        model = keras_mpt.models.PromptTunedSeq2SeqLM(backbone, config)
        ids = np.array([[5, 6, 7]])
        x = {f"{side}_token_ids": ids for side in ("encoder", "decoder")}
        x |= {f"{side}_padding_mask": np.ones_like(ids) for side in ("encoder", "decoder")}
        assert model({**x, "task_ids": 1}).shape == (1, 3, 100)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT `PeftModelForSeq2SeqLM`.
    """

    task_name = "Seq2SeqLM"
    task_type = TaskType.SEQ_2_SEQ_LM

    encoder_once: EncoderOnce | None = None
    decoder_cache: DecoderCache | None = None

    def find_caches(self, task: Any) -> None:
        """Finds out whether the encoder can run once, and the decoder's keys and values be kept."""
        self.encoder_once = encoder_once(self.splice)
        if self.encoder_once is not None:
            self.decoder_cache = decoder_cache(task, self.splice)

    @property
    def keeps_cache(self) -> bool:
        """Whether anything is kept from token to token: the encoder's states at least."""
        return self.encoder_once is not None

    @property
    def keeps_keys(self) -> bool:
        """Whether `step_of_cache` goes on from the decoder's keys and values."""
        return self.decoder_cache is not None

    def _cache_of_text(
        self, text_ids: Any, prompts: dict[str, Any], room: int = 0
    ) -> tuple[Any, Any]:
        """The states of each row's decoder text, and what is kept of encoder and decoder."""
        assert self.encoder_once is not None
        of_rows = ops.take(self.prompt(prompts["prompt_ids"]), prompts["prompt_rows"], axis=0)
        encoded = self.encoder_once.encode(prompts, of_rows)
        if self.decoder_cache is not None:
            return self.decoder_cache.after(text_ids, encoded, of_rows, room)
        cache, states = {**encoded, "prompts": of_rows}, None
        if self._is_contrastive():
            ids_name, mask_name = self._generated_names()
            x = {**cache, ids_name: text_ids, mask_name: ops.ones_like(text_ids)}
            _, states = self._outputs_and_states(x)
        return states, cache

    def _next_by_cache(self, tokens: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """The logits after the token before `index`, the encoder not being run again."""
        if self.decoder_cache is None:
            return self._next_by_splice(tokens, cache, index)
        return super()._next_by_cache(tokens, cache, index)

    def step_of_cache(self, tokens: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """Logits and states of tokens (B, n) that stand behind `index` others, and the cache."""
        assert self.decoder_cache is not None
        return self.decoder_cache.step(tokens, cache, index)

    def _outputs_and_states(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """As in every language model, from the encoder's states where they are there already."""
        if "encoder_states" not in inputs:
            return super()._outputs_and_states(inputs)
        assert self.encoder_once is not None
        outputs = self.encoder_once.decode(inputs, inputs, inputs["prompts"])
        outputs = self.splice.user_positions(outputs)
        return outputs, self.splice.follows_last_input(outputs)
