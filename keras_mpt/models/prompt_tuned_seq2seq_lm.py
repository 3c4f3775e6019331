"""An encoder-decoder language model with prompts."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.encoder_decoder import encoder_decoder
from keras_mpt.models.hub_task import hub_task
from keras_mpt.models.language_model import LanguageModel
from keras_mpt.splicing.decoder_cache import decoder_cache
from keras_mpt.splicing.encoder_once import encoder_once
from keras_mpt.types import Backbone, Config


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedSeq2SeqLM(LanguageModel):
    """A frozen keras-hub `Seq2SeqLM` with prompts: logits of the user's positions alone.

    Args:
        backbone: a `keras_hub.models.Backbone` that keras-hub has a `Seq2SeqLM` for. It is set to
            `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        head_config: dict. Further arguments of keras-hub's task; `prompt_tune` takes them from the
            task that it is given. Defaults to `None`.
        **kwargs: `truncation_side` ("left" or "right": where a prompt is cut that is too long with
            its response; `None`, the default, makes it an error) and `add_end_token` (whether a
            response is learned with an end token, by default `True`); `preprocessor`, `tokenizer`,
            `initialize`, `name`, `dtype`: see `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of `encoder_token_ids`, `encoder_padding_mask`, `decoder_token_ids` and
            `decoder_padding_mask`, each (B, S) integer, and `task_ids`, (B,) or scalar integer, or
            task names.
        training: bool. Defaults to `None`.

    Targets of `fit`:
        (B, S) integer: `y[:, t]` is the token after `decoder_token_ids[:, t]`. transformers takes
        the same y as `labels` and makes the decoder's input of them; here the decoder's input
        begins with the start token, and y is that input moved by one. With a preprocessor,
        `{"prompts": […], "responses": […]}` are the encoder's and the decoder's text: y and its
        weights, 1 at the response's tokens and its end, are made of them.

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

    task_type = TaskType.SEQ_2_SEQ_LM

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        head_config: Config | None = None,
        **kwargs: Any,
    ) -> None:
        task, graph = hub_task("Seq2SeqLM", backbone, head_config)
        super().__init__(task, graph, config, dict(head_config or {}), **kwargs)
        self.encoder_once = encoder_once(self.splice)
        has_halves = self.encoder_once is not None
        self.decoder_cache = decoder_cache(task, self.splice) if has_halves else None
        cached = encoder_decoder(self.reader, self.encoder_once, self.decoder_cache)
        self._decoding = Decoding(self.reader, self.functions, cached)
        self.finish()

    @property
    def decoding(self) -> Decoding:
        """The model's ways to decode: with what is kept of encoder and decoder, or without."""
        return self._decoding
