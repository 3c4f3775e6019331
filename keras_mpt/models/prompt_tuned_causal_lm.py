"""A causal language model with prompts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mpt._keras import sublayers
from keras_mpt.adapters import backbone_identity
from keras_mpt.checks import check_choice, received
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.decoding.decoder import Decoder
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.kept_prompts import KeptPrompts
from keras_mpt.decoding.prefix_decoder import PrefixDecoder, prompts_of_tasks
from keras_mpt.decoding.text_decoder import TextDecoder
from keras_mpt.fitting.target_positions import TARGET_POSITIONS
from keras_mpt.models.hub_task import hub_task
from keras_mpt.models.language_model import LanguageModel
from keras_mpt.prompts.distinct import distinct_tasks
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.serving import embeds
from keras_mpt.splicing.apart import is_long
from keras_mpt.splicing.prefix_cache import PrefixCache, prefix_cache
from keras_mpt.splicing.text_cache import TextCache
from keras_mpt.types import Backbone, Config, Tensor, Tensors


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedCausalLM(LanguageModel):
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
            GPT-NeoX, RWKV-7, Qwen 3.5, Falcon (left padding), a prompt after the start token or
            after the text, `position_ids` of your own, nor for the training of experts that are
            kept in balance by a loss of their own (Mixtral, Qwen MoE). `True` is an error where it
            never can; `False` gives each row its own prompt. Defaults to `"auto"`.
        remat: bool, or float between 0 and 1. Whether a step of `fit` runs each block of the
            backbone once more on the way back, rather than keep what is within it: about 40% more
            time, and a fraction of the memory. A float is the share of the blocks that do, such as
            0.5 for half of the time and half of what is saved. For shared prompts alone, and blocks
            without dropout. Defaults to `False`.
        head_config: dict. Further arguments of keras-hub's task, such as Gemma 4's
            `final_logit_cap`; `prompt_tune` takes them from the task that it is given. Defaults to
            `None`.
        **kwargs: `truncation_side` ("left" or "right": where a prompt is cut that is too long with
            its response; `None`, the default, makes it an error) and `add_end_token` (whether a
            response is learned with an end token, by default `True`); `preprocessor`, `tokenizer`,
            `initialize`, `name`, `dtype`: see `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of `token_ids` and `padding_mask`, each (B, S) integer, and `task_ids`, (B,) or
            scalar integer, or task names. Where the config's `prompt_position` is `"after"`, also
            `text_lengths`, (B,) integer: the prompt stands before the last of so many tokens.
            Without it these are all of a row's; `fit` wants it, and has it of text.
        training: bool. Defaults to `None`.

    Targets of `fit`:
        (B, S) integer: `y[:, t]` is the token after `token_ids[:, t]`, so y is the input moved by
        one. transformers takes `labels` equal to the input and moves them itself; here these would
        train the model to copy, which is warned of. A preprocessor makes y of text, with a
        `sample_weight` that leaves padding out. With one, `{"prompts": […], "responses": […]}`
        makes y of both, with a weight of 1 at the response's tokens and its end alone. The default
        loss is the mean over what counts.

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
        x = {"token_ids": ids[:, :-1], "padding_mask": np.ones((1, 2)), "task_ids": [1]}
        assert model(x).shape == (1, 2, 100)
        model.fit(x, ids[:, 1:], verbose=0)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT `PeftModelForCausalLM`.
    """

    task_type = TaskType.CAUSAL_LM
    prompt_embeds = embeds.prompt_embeds

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        share_prompts: bool | str = "auto",
        remat: bool | float = False,
        head_config: Config | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("share_prompts", share_prompts, ("auto", True, False))
        _check_remat(remat)
        task, graph = hub_task("CausalLM", backbone, head_config)
        super().__init__(task, graph, config, dict(head_config or {}), **kwargs)
        self.share_prompts, self.remat = share_prompts, remat
        found = prefix_cache(task, self.splice)
        self.prefix_cache = None if self.splice.is_after else found
        self.kept_prompts = KeptPrompts(self._cache_after, self._backbone_sample)
        cached: Decoder | None = None
        apart: PrefixDecoder | None = None
        if found is not None and self.splice.is_after:
            cached = TextDecoder(self.reader, TextCache(found))
        elif self.prefix_cache is not None:
            if is_long(self.prefix_cache.length):
                # Here numbers can be seen, by which it is found out; later it is only asked.
                self.prefix_cache.can_attend_apart(None)
            given = self.reader, self.prefix_cache, self.kept_prompts
            cached = PrefixDecoder(*given, prompts_of=self._prompts_of)
            apart = PrefixDecoder(*given, is_apart=True, prompts_of=self._prompts_of)
        self._decoding = Decoding(self.reader, self.functions, cached, apart)
        if share_prompts is True and not self._can_share():
            raise ValueError(
                "`share_prompts` should be 'auto' or False where keras-hub keeps no keys and "
                "values that a prompt in front could be put into. Received: share_prompts=True "
                f"for a {type(backbone).__name__}, prompt_position={self.config.prompt_position!r}"
            )
        if remat and not self._can_share():
            raise ValueError(
                "`remat` should be False where prompts cannot be shared, or are not to be. "
                f"Received: remat={remat} for a {type(backbone).__name__} with "
                f"share_prompts={share_prompts!r}"
            )
        if remat and _drops_out(backbone):
            raise ValueError(
                "`remat` should be False where blocks drop out: run once more, they would drop "
                f"others; open the backbone with dropout=0.0. Received: remat={remat} for a "
                f"{type(backbone).__name__} with dropout"
            )
        self.finish()

    @property
    def decoding(self) -> Decoding:
        """The model's ways to decode: with the keys and values of prompt and text, or without."""
        return self._decoding

    def call_with_states(
        self,
        inputs: dict[str, Tensor],
        layers: tuple[int, ...],
        prompt_positions: bool = False,
        training: bool | None = None,
        prompt: Prompt | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, S, V), and hidden states. To give a prompt's, each row computes its own."""
        known = {"token_ids", "padding_mask", "task_ids", TARGET_POSITIONS}
        own_positions = set(inputs) - known
        cache = self.prefix_cache
        if cache is None or prompt_positions or own_positions or not self._can_share(training):
            return super().call_with_states(inputs, layers, prompt_positions, training, prompt)
        prompt, token_ids = prompt or self.prompt, inputs["token_ids"]
        rows = ops.shape(token_ids)[0]
        distinct = distinct_tasks(inputs.get("task_ids"), prompt.tasks, rows)
        count = 1 if distinct.tasks is None else distinct.tasks.shape[0]
        is_saving = count is None or count != token_ids.shape[0]
        # A prompt for every row either way.
        if self.share_prompts == "auto" and not is_saving and not self.remat:
            return super().call_with_states(inputs, layers, prompt_positions, training, prompt)
        logits, states = cache.whole_rows(
            token_ids,
            inputs["padding_mask"],
            cache.after(prompt.for_rows(distinct.tasks, distinct.number)),
            distinct.rows,
            distinct.poison,
            layers,
            inputs.get(TARGET_POSITIONS),
            float(self.remat) if training else 0.0,
            cache.blocks(distinct.rows, count, token_ids.shape[1], training),
        )
        return ops.cast(logits, self.logits_dtype), states

    def own_arguments(self) -> Config:
        """What keras-hub's task is made with, and how prompts and blocks run."""
        own = {"share_prompts": self.share_prompts, "remat": self.remat}
        return {**super().own_arguments(), **own}

    def _can_share(self, training: bool | None = False) -> bool:
        cache = self.prefix_cache
        if cache is None or self.share_prompts is False:
            return False
        return cache.takes_padding and not (training and cache.adds_losses)

    def _cache_after(self, prompts: Tensor) -> Any:
        return self.functions.of(PrefixCache.after, self.prefix_cache)(prompts)

    def _prompts_of(self, tasks: Tensors) -> Tensor:
        return self.functions.of(prompts_of_tasks, self.prompt)(tasks)

    def _backbone_sample(self) -> Tensor:
        return self.functions.of(_sample, self.backbone)(())


def _check_remat(remat: Any) -> None:
    """Refuses what is no flag and no share; 1 might be meant as one block."""
    if not isinstance(remat, bool) and not (isinstance(remat, float) and 0 < remat < 1):
        raise ValueError(
            "`remat` should be True or False, or a float between 0 and 1, the share of the blocks. "
            f"Received: remat={received(remat)}"
        )


def _drops_out(backbone: Backbone) -> bool:
    """Whether the backbone drops numbers at random while training."""
    layers = sublayers(backbone)
    return any(isinstance(layer, keras.layers.Dropout) and layer.rate > 0 for layer in layers)


def _sample(backbone: Backbone, nothing: tuple[()]) -> Tensor:
    """A sample of a backbone's numbers, as a function to compile."""
    return backbone_identity.sample(backbone.weights)
