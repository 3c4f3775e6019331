"""What prompt-tuned language models share."""

from __future__ import annotations

import abc
from typing import Any, Self

import keras
import numpy as np

from keras_mpt.checks import check_flag
from keras_mpt.config import PromptTuningConfig
from keras_mpt.data.columns import as_columns
from keras_mpt.decoding import generate as generating
from keras_mpt.decoding.calibration import answers
from keras_mpt.decoding.compiled import CompiledFunctions
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.score import score
from keras_mpt.decoding.score_inputs import has_responses, refuse_responses
from keras_mpt.decoding.scoring import Options
from keras_mpt.decoding.word_accuracy import exact_accuracies
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.alone import alone
from keras_mpt.fitting.compile_defaults import default_optimizer
from keras_mpt.fitting.label_words import have_words
from keras_mpt.fitting.packing import check_packing
from keras_mpt.fitting.targets import NextTokens
from keras_mpt.heads.head import FrozenHead
from keras_mpt.models.hub_task import from_hub_task
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.types import Config, Data, Task, TaskIds, Tensor, Tensors


class LanguageModel(PromptTunedModel):
    """A frozen keras-hub language model with prompts: logits of the user's positions alone.

    Args:
        task: a `keras_hub.models.CausalLM` or `Seq2SeqLM` on the backbone, as `hub_task` makes it.
        graph: the task's part after the backbone, as `hub_task` cuts it off.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        head_config: dict. What the task was made with beside its backbone.
        truncation_side, add_end_token: how responses are packed; see `Packing`.
        **kwargs: see `keras_mpt.models.PromptTunedModel`.
    """

    head: FrozenHead
    exact_metrics = exact_accuracies

    def __init__(
        self,
        task: Task,
        graph: keras.Model,
        config: PromptTuningConfig,
        head_config: Config,
        truncation_side: str | None = None,
        add_end_token: bool = True,
        **kwargs: Any,
    ) -> None:
        check_packing(truncation_side, add_end_token)
        head = FrozenHead(graph, task.backbone)
        output = head.graph.outputs[0]
        targets = NextTokens(int(output.shape[-1]))
        super().__init__(task.backbone, config, head=head, targets=targets, **kwargs)
        self.head_config = head_config
        self.truncation_side = truncation_side
        self.add_end_token = add_end_token
        self.model_inputs = self.model_inputs.packed(truncation_side, add_end_token)
        self.logits_dtype = output.dtype
        self.frozen_head = head.frozen_layer()
        self.functions = CompiledFunctions(self)
        self.reader = Reader(self.splice, self.prompt, head)

    def finish(self) -> None:
        """Says that all variables are there, and compiles the model."""
        super().finish()
        self.compile()

    @property
    @abc.abstractmethod
    def decoding(self) -> Decoding:
        """The model's ways to decode."""

    @property
    def keeps_cache(self) -> bool:
        """Whether anything is kept from one new token to the next."""
        return self.decoding.cached is not None

    @property
    def takes_positions(self) -> bool:
        """Whether a call gives logits at `target_positions` alone, where its inputs have these."""
        return target_positions.is_ours(type(self))

    @classmethod
    def from_task(cls, task: Task, config: PromptTuningConfig, **kwargs: Any) -> Self:
        """A prompt-tuned model on a keras-hub language model, with that model's head.

        Args:
            task: a `keras_hub.models.CausalLM` or `Seq2SeqLM`.
            config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
            **kwargs: those of the constructor.

        Returns:
            A model of this class.
        """
        return from_hub_task(cls, task, config, **kwargs)

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        sampler: Any = "top_k",
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005.
            loss: loss of logits, which names mean too, or a dict of task name to loss. Defaults to
                `"auto"`: sparse cross-entropy on logits, the mean over the targets that count by
                their `sample_weight` (transformers' too). Where the loss and the metrics depend on
                these alone, logits are computed at no others.
            weighted_metrics: list of metrics, or a dict of task name to list. Defaults to `"auto"`:
                accuracy.
            sampler: a `keras_hub.samplers.Sampler` or its name, for `generate`. Defaults to
                `"top_k"`.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        found, kwargs["weighted_metrics"] = generating.sampler_of(sampler), weighted_metrics
        super().compile(default_optimizer(optimizer), loss, **kwargs)
        self.set_sampler(found)

    def set_sampler(self, sampler: Any) -> None:
        """Draws with another sampler from now on, and forgets what was compiled with the old one.

        Args:
            sampler: a `keras_hub.samplers.Sampler` or its name.
        """
        self.sampler = generating.sampler_of(sampler)
        self.functions.forget()

    def compile_arguments(self) -> Config:
        """What `compile` was given, the sampler included."""
        return {**super().compile_arguments(), "sampler": self.sampler}

    def get_compile_config(self) -> Config | None:
        """What `compile` was given, as JSON values."""
        config: Config | None = super().get_compile_config()
        if config:
            config["sampler"] = keras.saving.serialize_keras_object(self.sampler)
        return config

    def forget_compiled(self) -> None:
        """Forgets the functions that were compiled for variables that are replaced."""
        super().forget_compiled()
        self.functions.forget()

    def fold(self, task: str | int) -> Self:
        """A model of one task, which draws as this one does; see `PromptTunedModel.fold`."""
        folded = super().fold(task)
        folded.set_sampler(self.sampler)
        return folded

    @alone
    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        strip_prompt: bool = False,
        *,
        task_ids: TaskIds | None = None,
        use_cache: bool = True,
    ) -> str | list[str] | dict[str, np.ndarray]:
        """Continues text under each row's own task, as `keras_hub.models.CausalLM.generate` does.

        The sampler is `compile`'s, "top_k" if none is given.

        Args:
            inputs: string or list of strings, where the model has a preprocessor (also as
                `{"text": …}`; an encoder-decoder also takes `encoder_text` and `decoder_text`);
                else a dict of the backbone's inputs, each (B, S) integer and padded on the right
                to the length that is wanted. A dict may hold `task_ids`.
            max_length: int. The length of the input and the new text together, prompts not counted.
                Defaults to `None`: the preprocessor's. A dict of tokens has its own, S.
            stop_token_ids: int or list of ints that end a row, `None` for no end, or `"auto"`: the
                tokenizer's end token. Defaults to `"auto"`.
            strip_prompt: bool. Whether to give the new text alone. Defaults to `False`.
            task_ids: integer, task name, or a list of them with one per row, (B,). Not given to a
                model without tasks. Defaults to `None`.
            use_cache: bool. Whether to keep keys and values, where the model can. The text is the
                same either way. Defaults to `True`.

        Returns:
            A string or a list of them; without a preprocessor a dict of int arrays (B, S), the
            tokens and their mask.

        Raises:
            ValueError: wrong inputs or task ids, rows that are not padded on the right, no room for
                new tokens, strings without a preprocessor, a `max_length` that is no size or more
                than there are positions, `stop_token_ids` that are not in the vocabulary, a flag
                that is neither True nor False, or logits that are NaN or infinite.
        """
        return generating.generate(
            self.decoding,
            self.model_inputs,
            self.sampler,
            inputs,
            max_length=max_length,
            stop_token_ids=stop_token_ids,
            strip_prompt=strip_prompt,
            task_ids=task_ids,
            use_cache=use_cache,
        )

    @alone
    def score(
        self,
        inputs: Any,
        candidates: Any = None,
        *,
        task_ids: TaskIds | None = None,
        normalize: str = "sum",
        use_cache: bool = True,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """How likely each candidate is as the continuation of each row, under the row's own task.

        Row b's score of a candidate with the tokens c_1 … c_n is

            Σ_i log p(c_i | the task's prompt, the row's tokens, c_1 … c_(i-1)),

        natural logarithms, the softmax taken in float32. An encoder-decoder's candidates follow
        its decoder's tokens, which are the start token where the input is one text.

        A string's candidates are tokenized by themselves, without start or end tokens, and put
        right after the input's tokens. So the score is that of exactly these tokens: where a
        tokenizer keeps spaces, "It is" goes on with " good", not with "good".

        `{"prompts": […], "responses": […]}` gives each row's own response's, its end token's
        included where `fit` learns that: `fit` makes the mean over all of these tokens large.

        Args:
            inputs: as `generate` takes them: string or list of strings where the model has a
                preprocessor, else a dict of the backbone's inputs, each (B, S) integer and padded
                on the right; no room for candidates is needed. It may hold `task_ids`.
                `{"prompts": …}`, and any single text where the model has a `truncation_side`, leave
                room for the longest candidate, as in `fit`.
            candidates: list of C strings (with a preprocessor) or C lists of token ids, for all
                rows; or a list of B such lists, one per row and all of one length. `None`: each
                row's own response, or its own task's `label_words`. Defaults to `None`.
            task_ids: as in `generate`. Defaults to `None`.
            normalize: `"sum"`, or `"mean"` for the sum divided by n: a sum favours short
                candidates. Defaults to `"sum"`.
            use_cache: bool. Whether to read the input once, where the model can. The numbers are
                the same either way. Defaults to `True`.
            batch_size: int. Rows that are read at once. Defaults to `None`: 32.

        Returns:
            A float32 NumPy array (B, C); one string is one row. Of label words, C is the most
            classes that a row's task has, and −∞ stands for those that another row's has not. Of
            responses (B,).

        Raises:
            ValueError: wrong inputs or task ids, candidates of another form, without tokens or
                not as many for each row, a task without label words, strings without a
                preprocessor, token ids outside the vocabulary, more tokens than the backbone has
                positions for, or logits that are NaN or infinite.

        Example:
            ```python
            tokens = [*"abcdef", "ab", "<|endoftext|>"]
            letters = {letter: i for i, letter in enumerate(tokens)}
            tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=letters, merges=["a b"])
            preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
            backbone = keras_hub.models.GPT2Backbone(
                vocabulary_size=10, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=2,
                task_names=["tone", "topic"],
                label_words={"tone": ["a", "b"], "topic": ["c", "d", "ef"]},
            )
            model = keras_mpt.prompt_tune(backbone, config, preprocessor=preprocessor)
            assert model.score(["cab", "fed"], ["a", "ef"], task_ids=[0, 1]).shape == (2, 2)
            labels, p = model.predict_labels(
                ["cab", "fed"], task_ids=["tone", "topic"], return_probabilities=True
            )
            assert labels[0] in ["a", "b"] and p[0, 2] == 0
            ```

        Source: Wang et al. 2023 (arXiv 2303.02861), section 4: classes as words to generate.
        """
        asked = (inputs, candidates, task_ids, Options(normalize, use_cache, batch_size))
        scores = score(self.decoding, self.model_inputs, *asked)[0]
        return scores[:, 0] if has_responses(inputs) else scores

    @alone
    def predict_labels(
        self,
        inputs: Any,
        candidates: Any = None,
        *,
        task_ids: TaskIds | None = None,
        normalize: str = "sum",
        use_cache: bool = True,
        calibrate: Any = False,
        return_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """The candidate with the highest `score` for each row; of equal ones, the first.

        Without candidates it is one of the row's own task's `label_words`.

        A frozen language model favours some words whatever it reads. `calibrate=True` takes that
        off: from each score the logarithm of

            mean over t of softmax_c(score of candidate c after t),

        where t are texts without content ("", "N/A" and "[MASK]"), under the same task's prompt.
        Where a template stands around the input's texts, give the same template around such texts:
        `calibrate=[template.format(t) for t in ("", "N/A", "[MASK]")]`.

        Args:
            inputs: as in `score`.
            candidates: as in `score`. Defaults to `None`.
            task_ids: as in `score`. Defaults to `None`.
            normalize: as in `score`. Defaults to `"sum"`.
            use_cache: as in `score`. Defaults to `True`.
            calibrate: bool, a list of texts without content, or a dict of task name to such a
                list. Defaults to `False`.
            return_probabilities: bool. Whether to give probabilities too. Defaults to `False`.
            batch_size: as in `score`. Defaults to `None`.

        Returns:
            A list of B strings where candidates are strings; where they are token ids, an integer
            NumPy array (B,) of their indices. With `return_probabilities` a tuple of these and of
            the softmax of the row's scores, float32 (B, C), 0 for a class that its task has not.

        Raises:
            ValueError: as in `score`; a row whose candidates all have a probability of 0; or
                `calibrate` of another form, or without a preprocessor.

        Source: Zhao et al. 2021 (arXiv 2102.09690), for `calibrate`.
        """
        with_p = check_flag("return_probabilities", return_probabilities)
        refuse_responses(inputs)
        asked = (inputs, candidates, task_ids, Options(normalize, use_cache, batch_size, calibrate))
        scores, given = score(self.decoding, self.model_inputs, *asked)
        return answers(given, scores, with_p)

    @alone
    def predict(
        self,
        x: Data,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Tensors:
        """`keras.Model.predict`; rows of text, each of a task with `label_words`, are scored.

        Args:
            x: as in `fit`. A stream gives logits, as tokens do, or tasks without words.
            batch_size, verbose, steps, callbacks: as in `keras.Model.predict`, with its defaults;
                of these, scores take `batch_size` alone.

        Returns:
            Logits (B, S, V); or what `score(x)` gives, (B, C).
        """
        if not have_words(self.model_inputs, x):
            return super().predict(x, batch_size, verbose, steps, callbacks)
        return self.score(as_columns(x), batch_size=batch_size)

    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensor:
        """Logits (B, S, V); (B, K, V) at `target_positions` where a step's data have them."""
        outputs = self.splice.user_positions(outputs, inputs)
        states = self.splice.follows_last_input(outputs)
        here = target_positions.taken(inputs, states)
        flat = [here if o is states else o for o in keras.tree.flatten(outputs)]
        return self.head(flat, training=training)

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> keras.KerasTensor:
        """The logits' shape and dtype."""
        outputs = keras.tree.flatten(self.splice.backbone_spec(inputs))
        logits = self.head.graph.compute_output_spec(outputs)
        positions = inputs.get(target_positions.TARGET_POSITIONS)
        shape = logits.shape if positions is None else (*positions.shape, logits.shape[-1])
        return keras.KerasTensor(shape, logits.dtype)

    def own_arguments(self) -> Config:
        """What keras-hub's task is made with, and how responses are packed."""
        packed = {"truncation_side": self.truncation_side, "add_end_token": self.add_end_token}
        return {"head_config": self.head_config, **packed}
