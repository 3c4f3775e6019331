"""Text from prompt-tuned language models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.decoding.generation_inputs import (
    as_text,
    check_room,
    tokenized,
    trim,
    up_to_step,
    without_input,
    without_task_ids,
)
from keras_mpt.models.prompt_tuned_model import PromptTunedModel


class Generating(PromptTunedModel):
    """`generate` for language models, with keras-hub's samplers and preprocessors.

    A causal model's keys and values are kept: those of the prompt are computed once per task of the
    batch, those of the text once per token. So are a decoder's, behind an encoder that runs once.
    Where keras-hub has no such cache, or a wrong one, every new token runs `[prompt; tokens]`
    through the backbone once more.
    """

    # From the backbone's flat outputs to logits; a language model sets it.
    to_logits: Any
    # What a model that keeps a cache has: text ids (B, S), the rows' prompts and room for new
    # tokens to the text's states and cache; tokens (B, n), a cache and how many tokens are before
    # these to their logits, their states and the cache.
    _cache_of_text: Any
    step_of_cache: Any
    sampler: Any = None
    generate_function: Any = None

    @property
    def keeps_cache(self) -> bool:
        """Whether anything is kept from one new token to the next."""
        return False

    def generate(
        self,
        inputs: Any,
        task_ids: Any = None,
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        strip_prompt: bool = False,
        use_cache: bool = True,
    ) -> Any:
        """Continues text under each row's own task, as `keras_hub.models.CausalLM.generate` does.

        The sampler is `compile`'s, "top_k" if none is given.

        Args:
            inputs: string or list of strings, where the model has a preprocessor (also as
                `{"text": …}`; an encoder-decoder also takes `encoder_text` and `decoder_text`);
                else a dict of the backbone's inputs, each (B, S) integer and padded on the right
                to the length that is wanted. A dict may hold `task_ids`.
            task_ids: integer, task name, or a list of them with one per row, (B,). Not given to a
                model without tasks. Defaults to `None`.
            max_length: int. The length of the input and the new text together, prompts not counted.
                Defaults to `None`: the preprocessor's. A dict of tokens has its own, S.
            stop_token_ids: int or list of ints that end a row, `None` for no end, or `"auto"`: the
                tokenizer's end token. Defaults to `"auto"`.
            strip_prompt: bool. Whether to give the new text alone. Defaults to `False`.
            use_cache: bool. Whether to keep keys and values, where the model can. The text is the
                same either way. Defaults to `True`.

        Returns:
            A string or a list of them; without a preprocessor a dict of int arrays (B, S), the
            tokens and their mask.

        Raises:
            ValueError: wrong inputs or task ids, rows that are not padded on the right, no room for
                new tokens, or strings without a preprocessor.
        """
        stop_token_ids = self._stop_token_ids(stop_token_ids)
        inputs, task_ids = without_task_ids(inputs, task_ids)
        text = as_text(inputs, self.preprocessor, len(self.splice.token_inputs) > 1)
        tokens = inputs if text is None else tokenized(text, self.preprocessor, max_length)
        if task_ids is not None:
            tokens = {**tokens, "task_ids": task_ids}
        tokens = self.inputs_checked.prepare(tokens)
        ids_name, mask_name = self._generated_names()
        given = {name: ops.convert_to_numpy(value) for name, value in tokens.items()}
        check_room(given[mask_name], mask_name, None if text is not None else max_length)
        rows = len(given[ids_name])
        for token_input in self.splice.token_inputs[:-1]:
            trim(given, token_input)
        if "task_ids" in given:
            given["task_ids"] = np.broadcast_to(given["task_ids"], rows)
        own_positions = any(name in given for name in self.splice.token_inputs[-1].other_names)
        if use_cache and self.keeps_cache and not own_positions:
            given |= self.prompts_of_batch(given.pop("task_ids", None), rows)
            # The columns in which all rows have text. What comes then, comes token by token.
            columns = (given[mask_name] != 0).sum(axis=1).min()
            given["text_ids"] = given[ids_name][:, : up_to_step(columns)]
        made = self.make_generate_function()(given, stop_token_ids=stop_token_ids)
        made = {name: ops.convert_to_numpy(value) for name, value in made.items()}
        if strip_prompt:
            made = without_input(made, given[mask_name] != 0, ids_name, mask_name)
        if text is None:
            return made
        made_text = self.preprocessor.generate_postprocess(made)
        return made_text[0] if text.is_one else made_text

    def generate_step(self, inputs: dict[str, Any], stop_token_ids: Any = None) -> dict[str, Any]:
        """One batch, compiled on TensorFlow and JAX.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,).
            stop_token_ids: ints that end a row, or `None`. Defaults to `None`.

        Returns:
            A dict of the generated tokens (B, S), and their mask.
        """
        ids_name, mask_name = self._generated_names()
        token_ids = ops.cast(inputs[ids_name], "int32")
        given = ops.cast(inputs[mask_name], "bool")
        # A beam search repeats the sampler's cache for each beam, so all that has rows is in it.
        cache = {k: v for k, v in inputs.items() if k not in (ids_name, mask_name)}
        if "text_ids" in inputs:
            text_ids = ops.cast(cache.pop("text_ids"), "int32")
            room = token_ids.shape[1] - text_ids.shape[1]
            states, cache = self._cache_of_text(text_ids, cache, room)
            if states is not None:
                states = ops.pad(states, [(0, 0), (0, room), (0, 0)])
            next_logits = self._next_by_cache
        else:
            next_logits, states = self._next_by_splice, None
            if self._is_contrastive():
                x = {**cache, ids_name: token_ids, mask_name: inputs[mask_name]}
                _, states = self._outputs_and_states(x)

        token_ids = self.sampler(
            next=next_logits,
            prompt=token_ids,
            cache=cache,
            index=ops.min(ops.sum(ops.cast(given, "int32"), axis=-1)),
            mask=given,
            stop_token_ids=stop_token_ids,
            hidden_states=states,
            model=self,
        )
        mask = ops.ones_like(given)
        if stop_token_ids is not None:
            stops = [ops.equal(token_ids, stop) for stop in stop_token_ids]
            ends = ops.any(ops.stack(stops), axis=0) & ops.logical_not(given)
            ends = ops.cast(ends, "int32")
            mask = ops.equal(ops.cumsum(ends, axis=-1) - ends, 0)
        return {ids_name: token_ids, mask_name: mask}

    def _next_by_splice(self, tokens: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """The logits after the token before `index`, by running the whole text."""
        # Later positions cannot reach back, so the mask need not say where the text ends.
        ids_name, mask_name = self._generated_names()
        x = {**cache, ids_name: tokens, mask_name: ops.ones_like(tokens)}
        logits, states = self.logits_at(x, index - 1)
        return logits, states, cache

    def _next_by_cache(self, tokens: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """The same, by running the token before `index` alone."""
        last = ops.slice(tokens, (0, index - 1), (ops.shape(tokens)[0], 1))
        logits, states, cache = self.step_of_cache(last, cache, index - 1)
        return logits[:, 0], states[:, 0], cache

    def prompts_of_batch(self, task_ids: Any, rows: int) -> dict[str, Any]:
        """What `_cache_of_text` gets for the rows' prompts.

        The batch's different prompts (K,), and which of them each row has (B,). K is min(T, B)
        however many differ, so that one compiled function serves all batches of a size.
        """
        if task_ids is None:
            return {"prompt_ids": self.prompt.indices(1), "prompt_rows": np.zeros(rows, "int32")}
        different, of_rows = np.unique(task_ids, return_inverse=True)
        prompt_ids = np.resize(different, min(self.prompt.num_tasks, rows))
        return {
            "prompt_ids": prompt_ids.astype("int32"),
            "prompt_rows": of_rows.astype("int32"),
        }

    def logits_at(self, inputs: dict[str, Any], position: Any) -> tuple[Any, Any]:
        """The next token's logits (B, V) after a position, and the states that they are made of."""
        outputs, states = self._outputs_and_states(inputs)
        here = _at_position(states, position)
        flat = [here if o is states else o for o in keras.tree.flatten(outputs)]
        return self.to_logits(flat, training=False)[:, 0], here[:, 0]

    def _outputs_and_states(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """The backbone's outputs at user positions; of these the text's that is continued."""
        outputs = self.splice.user_positions(self.run_backbone(inputs, training=False)[0])
        return outputs, self.splice.follows_last_input(outputs)

    def make_generate_function(self) -> Any:
        """`generate_step`, compiled as keras-hub compiles its own."""
        import keras_hub

        # It knows each backend's way, and hands over the variables' values at every call.
        return keras_hub.models.CausalLM.make_generate_function(self)

    def set_sampler(self, sampler: Any) -> None:
        """Takes a keras-hub sampler or its name, and forgets what was compiled with another."""
        self.sampler = sampler_of(sampler)
        self.generate_function = None

    def _is_contrastive(self) -> bool:
        """Whether the sampler compares the new token's states with those of the text."""
        import keras_hub

        return isinstance(self.sampler, keras_hub.samplers.ContrastiveSampler)

    def _generated_names(self) -> tuple[str, str]:
        last = self.splice.token_inputs[-1]
        return last.name, str(last.mask_name)

    def _stop_token_ids(self, stop_token_ids: Any) -> Any:
        if not isinstance(stop_token_ids, str):
            stops = np.reshape(np.asarray([] if stop_token_ids is None else stop_token_ids), -1)
            return tuple(int(i) for i in stops) or None
        if self.preprocessor is None:
            raise ValueError(
                "`stop_token_ids` should be None or a list of token ids where the model has no "
                "preprocessor to take them from. Received: stop_token_ids='auto'"
            )
        tokenizer = self.preprocessor.tokenizer
        ends = [tokenizer.end_token_id, getattr(tokenizer, "end_token2_id", None)]
        return tuple(int(i) for i in ends if i is not None)


def sampler_of(sampler: Any) -> Any:
    """A keras-hub sampler, from one or the name of one."""
    import keras_hub

    try:
        found = keras_hub.samplers.get(sampler)
    except (ValueError, KeyError, TypeError):  # keras-hub's three ways to say that it knows none.
        found = None
    if not isinstance(found, keras_hub.samplers.Sampler):
        raise ValueError(
            "`sampler` should be a keras_hub.samplers.Sampler or the name of one, such as 'greedy' "
            f"or 'top_k'. Received: sampler={sampler!r}"
        )
    return found


def _at_position(sequence: Any, position: Any) -> Any:
    """One position of a sequence, (B, S, d) -> (B, 1, d), for a position that a loop counts."""
    rows, _, width = ops.shape(sequence)
    return ops.slice(sequence, (0, ops.cast(position, "int32"), 0), (rows, 1, width))
