"""Text from prompt-tuned language models."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.splicing.prefix_cache import PrefixCache


class Generating(PromptTunedModel):
    """`generate` for language models, with keras-hub's samplers and preprocessors.

    A causal model's keys and values are kept: those of the prompt are computed once per task of the
    batch, those of the text once per token. Where keras-hub has no such cache, or a wrong one, and
    in an encoder-decoder, every new token runs `[prompt; tokens]` through the backbone once more.
    """

    prefix_cache: PrefixCache | None = None
    sampler: Any = None
    generate_function: Any = None

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
            inputs: string or list of strings, where the model has a preprocessor (an
                encoder-decoder also takes a dict of `encoder_text` and `decoder_text`); else a
                dict of the backbone's inputs, each (B, S) integer and padded on the right to the
                length that is wanted.
            task_ids: integer, task name, or a list of them with one per row. Not given to a model
                without tasks. Defaults to `None`.
            max_length: int. The length of the input and the new text together, prompts not counted.
                Defaults to `None`: the preprocessor's. Without a preprocessor S counts.
            stop_token_ids: list of ints that end a row, `None` for no end, or `"auto"`: the
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
        is_text = not isinstance(inputs, dict) or any(name.endswith("text") for name in inputs)
        stop_token_ids = self._stop_token_ids(stop_token_ids)
        is_one, tokens = False, inputs
        if is_text:
            is_one, tokens = self._tokenized(inputs, max_length)
        if task_ids is not None:
            tokens = {**tokens, "task_ids": task_ids}
        tokens = self.inputs_checked.prepare(tokens)
        ids_name, mask_name = self._generated_names()
        _check_room(ops.convert_to_numpy(tokens[mask_name]), mask_name)
        given = {name: ops.convert_to_numpy(value) for name, value in tokens.items()}
        rows = len(given[ids_name])
        if "task_ids" in given:
            given["task_ids"] = np.broadcast_to(given["task_ids"], rows)
        if use_cache and self.prefix_cache is not None:
            given |= _prompts_of_batch(given.pop("task_ids", None), rows, self.prompt)
        made = self.make_generate_function()(given, stop_token_ids=stop_token_ids)
        made = {name: ops.convert_to_numpy(value) for name, value in made.items()}
        if strip_prompt:
            made = _without_input(made, given[mask_name] != 0, ids_name, mask_name)
        if not is_text:
            return made
        text = self.preprocessor.generate_postprocess(made)
        return text[0] if is_one else text

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
        next_logits = self._next_by_splice
        if "prompt_rows" in inputs:
            cache = self._cache_of_text(token_ids, cache)
            next_logits = self._next_by_cache

        token_ids = self.sampler(
            next=next_logits,
            prompt=token_ids,
            cache=cache,
            index=ops.min(ops.sum(ops.cast(given, "int32"), axis=-1)),
            mask=given,
            stop_token_ids=stop_token_ids,
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
        assert self.prefix_cache is not None
        last = ops.slice(tokens, (0, index - 1), (ops.shape(tokens)[0], 1))
        logits, states, cache = self.prefix_cache.step(last, cache, index - 1)
        return logits[:, 0], states[:, 0], cache

    def _cache_of_text(self, token_ids: Any, prompts: dict[str, Any]) -> Any:
        """The keys and values of each row's prompt and text."""
        assert self.prefix_cache is not None
        cache = self.prefix_cache.after(self.prompt(prompts["prompt_ids"]))
        cache = self.prefix_cache.for_rows(cache, prompts["prompt_rows"], token_ids.shape[1])
        return self.prefix_cache.step(token_ids, cache, 0)[2]

    def logits_at(self, inputs: dict[str, Any], position: Any) -> tuple[Any, Any]:
        """The next token's logits (B, V) after a position, and the states that they are made of."""
        raise NotImplementedError

    def make_generate_function(self) -> Any:
        """`generate_step`, compiled as keras-hub compiles its own."""
        import keras_hub

        # It knows each backend's way, and hands over the variables' values at every call.
        return keras_hub.models.CausalLM.make_generate_function(self)

    def set_sampler(self, sampler: Any) -> None:
        """Takes a keras-hub sampler or its name, and forgets what was compiled with another."""
        import keras_hub

        self.sampler = keras_hub.samplers.get(sampler)
        self.generate_function = None

    def _generated_names(self) -> tuple[str, str]:
        last = self.splice.token_inputs[-1]
        return last.name, str(last.mask_name)

    def _stop_token_ids(self, stop_token_ids: Any) -> Any:
        if stop_token_ids != "auto":
            return None if stop_token_ids is None else tuple(int(i) for i in stop_token_ids)
        if self.preprocessor is None:
            raise ValueError(
                "`stop_token_ids` should be None or a list of token ids where the model has no "
                "preprocessor to take them from. Received: stop_token_ids='auto'"
            )
        tokenizer = self.preprocessor.tokenizer
        ends = [tokenizer.end_token_id, getattr(tokenizer, "end_token2_id", None)]
        return tuple(int(i) for i in ends if i is not None)

    def _tokenized(self, inputs: Any, max_length: int | None) -> tuple[bool, dict[str, Any]]:
        """Whether there is one text alone, and the inputs' tokens."""
        if self.preprocessor is None:
            raise ValueError(
                "`inputs` should be a dict of the backbone's inputs where the model has no "
                f"preprocessor. Received: inputs of type {type(inputs).__name__}"
            )
        is_one = isinstance(inputs, str)
        if isinstance(inputs, dict):
            is_one = all(isinstance(text, str) for text in inputs.values())
            inputs = {k: [v] if is_one else list(v) for k, v in inputs.items()}
        else:
            inputs = [inputs] if is_one else list(inputs)
        tokens = self.preprocessor.generate_preprocess(inputs, sequence_length=max_length)
        return is_one, {k: ops.convert_to_numpy(v).astype("int32") for k, v in tokens.items()}


def _check_room(mask: np.ndarray, mask_name: str) -> None:
    """Refuses rows that generation would continue in the wrong place, or not at all."""
    mask = mask != 0
    if not mask[:, 0].all() or (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(
            f"`{mask_name}` should be 1 at each row's tokens, then 0: rows are padded on the right "
            f"and have at least one token. Received: {mask_name}={mask.astype(int).tolist()}"
        )
    if mask[:, -1].any():
        raise ValueError(
            f"`max_length` (without a preprocessor: the length of the inputs) should leave room "
            f"for new tokens. Received: {int(mask[:, -1].sum())} rows that fill all "
            f"{mask.shape[1]} positions"
        )


def _prompts_of_batch(task_ids: Any, rows: int, prompt: Any) -> dict[str, np.ndarray]:
    """The batch's different prompts (K,), and which of them each row has (B,).

    K is min(T, B) however many differ, so that one compiled function serves all batches of a size.
    """
    if task_ids is None:
        return {"prompt_ids": prompt.indices(1), "prompt_rows": np.zeros(rows, "int32")}
    different, of_rows = np.unique(task_ids, return_inverse=True)
    prompt_ids = np.resize(different, min(prompt.num_tasks, rows))
    return {"prompt_ids": prompt_ids.astype("int32"), "prompt_rows": of_rows.astype("int32")}


def _without_input(
    made: dict[str, Any], given: np.ndarray, ids_name: str, mask_name: str
) -> dict[str, np.ndarray]:
    """The new tokens of each row at its front; padding (the mask's 0) behind them."""
    # A stable sort by "was given" brings the new tokens forward in their order.
    order = np.argsort(given, axis=1, kind="stable")
    is_new = (made[mask_name] != 0) & ~given
    return {
        ids_name: np.take_along_axis(made[ids_name], order, axis=1),
        mask_name: np.take_along_axis(is_new, order, axis=1),
    }


def at_position(sequence: Any, position: Any) -> Any:
    """One position of a sequence, (B, S, d) -> (B, 1, d), for a position that a loop counts."""
    rows, _, width = ops.shape(sequence)
    return ops.slice(sequence, (0, ops.cast(position, "int32"), 0), (rows, 1, width))
