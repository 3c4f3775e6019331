"""How likely a prompt-tuned language model finds given continuations: a classifier by label."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.decoding.candidates import Candidates, as_candidates, padded, pairs
from keras_mpt.decoding.compiled import compiled
from keras_mpt.decoding.generate import Generating
from keras_mpt.decoding.generation_inputs import (
    as_text,
    check_right_padding,
    tokenized,
    trim,
    up_to_step,
    without_task_ids,
)


class Scoring(Generating):
    """`score` and `predict_labels` for language models.

    The prompt and the input run once, whatever the number of candidates; these run from the keys
    and values behind each row's last token. Where a model keeps none (see `generate`), the whole
    runs once for each candidate, and the numbers are the same.
    """

    # The compiled functions: what is read once, and how candidates go on from there.
    score_functions: Any = None

    def score(
        self,
        inputs: Any,
        candidates: Any,
        task_ids: Any = None,
        normalize: str = "sum",
        use_cache: bool = True,
    ) -> np.ndarray:
        """How likely each candidate is as the continuation of each row, under the row's own task.

        Row b's score of a candidate with the tokens c_1 … c_n is

            Σ_i log p(c_i | the task's prompt, the row's tokens, c_1 … c_(i-1)),

        natural logarithms, the softmax taken in float32. An encoder-decoder's candidates follow
        its decoder's tokens, which are the start token where the input is one text.

        A string's candidates are tokenized by themselves, without start or end tokens, and put
        right behind the input's tokens. So the score is that of exactly these tokens: where a
        tokenizer keeps spaces, "It is" goes on with " good", not with "good".

        Args:
            inputs: as `generate` takes them: string or list of strings where the model has a
                preprocessor, else a dict of the backbone's inputs, each (B, S) integer and padded
                on the right; no room for candidates is needed. It may hold `task_ids`.
            candidates: list of C strings (with a preprocessor) or C lists of token ids, for all
                rows; or a list of B such lists, one per row and all of one length.
            task_ids: as in `generate`. Defaults to `None`.
            normalize: `"sum"`, or `"mean"` for the sum divided by n: a sum favours short
                candidates. Defaults to `"sum"`.
            use_cache: bool. Whether to read the input once, where the model can. The numbers are
                the same either way. Defaults to `True`.

        Returns:
            A float32 NumPy array (B, C); one string is one row.

        Raises:
            ValueError: wrong inputs or task ids, candidates that are none, have no tokens or are
                not as many for each row, strings without a preprocessor, token ids outside the
                vocabulary, or more tokens than the backbone has positions for.

        Example:
            ```python
            backbone = keras_hub.models.GPT2Backbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=3)
            model = keras_mpt.models.PromptTunedCausalLM(backbone, config)
            ids = np.array([[5, 6, 7], [8, 9, 0]])
            x = {"token_ids": ids, "padding_mask": ids != 0}
            scores = model.score(x, [[11], [12, 13]], task_ids=[0, 2])
            assert scores.shape == (2, 2)
            assert (scores < 0).all()
            labels = model.predict_labels(x, [[11], [12, 13]], task_ids=[0, 2])
            assert (labels == scores.argmax(axis=1)).all()
            ```

        Source: Wang et al. 2023 (arXiv 2303.02861), section 4: classes as words to generate.
        """
        return self._scored(inputs, candidates, task_ids, normalize, use_cache)[0]

    def predict_labels(
        self,
        inputs: Any,
        candidates: Any,
        task_ids: Any = None,
        normalize: str = "sum",
        use_cache: bool = True,
    ) -> Any:
        """The candidate with the highest `score` for each row; of equal ones, the first.

        Args:
            inputs: as in `score`.
            candidates: as in `score`.
            task_ids: as in `score`. Defaults to `None`.
            normalize: as in `score`. Defaults to `"sum"`.
            use_cache: as in `score`. Defaults to `True`.

        Returns:
            A list of B strings where candidates are strings; where they are token ids, an integer
            NumPy array (B,) of their indices.

        Raises:
            ValueError: as in `score`.
        """
        scores, given = self._scored(inputs, candidates, task_ids, normalize, use_cache)
        return given.best(scores)

    def set_sampler(self, sampler: Any) -> None:
        """Forgets what was compiled, as `compile` and changes of the tasks ask for."""
        super().set_sampler(sampler)
        self.score_functions = None

    @property
    def keeps_keys(self) -> bool:
        """Whether `step_of_cache` goes on from keys and values."""
        return self.keeps_cache

    def _scored(
        self, inputs: Any, candidates: Any, task_ids: Any, normalize: str, use_cache: bool
    ) -> tuple[np.ndarray, Candidates]:
        if normalize not in ("sum", "mean"):
            raise ValueError(
                f"`normalize` should be 'sum' or 'mean'. Received: normalize={normalize!r}"
            )
        chosen = as_candidates(candidates, self.preprocessor, self.splice.vocabulary_size)
        given, lengths = self._rows_to_score(inputs, task_ids)
        chosen.check_rows(len(lengths))
        self._check_positions(lengths, chosen)
        scores = self._log_likelihoods(given, lengths, chosen, use_cache)
        if normalize == "mean":
            scores /= chosen.lengths
        return scores, chosen

    def _rows_to_score(self, inputs: Any, task_ids: Any) -> tuple[dict[str, Any], np.ndarray]:
        """The checked inputs, no wider than their longest row, and each row's length (B,)."""
        inputs, task_ids = without_task_ids(inputs, task_ids)
        text = as_text(inputs, self.preprocessor, len(self.splice.token_inputs) > 1)
        last = self.splice.token_inputs[-1]
        ids_name, mask_name = self._generated_names()
        if text is None:
            tokens = inputs
        else:
            # One more than fits: the preprocessor cuts longer text off without a word.
            fits = self.preprocessor.sequence_length
            tokens = tokenized(text, self.preprocessor, fits + 1)
            longest = int(tokens[mask_name].sum(axis=1).max())
            if longest > fits:
                raise ValueError(
                    f"`inputs` should be texts of at most {fits} tokens "
                    "(`preprocessor.sequence_length` sets it): what follows them is scored. "
                    "Received: a longer one"
                )
            for name in (ids_name, mask_name):
                tokens[name] = tokens[name][:, :longest]
        if task_ids is not None:
            tokens = {**tokens, "task_ids": task_ids}
        tokens = self.inputs_checked.prepare(tokens)
        given = {name: ops.convert_to_numpy(value) for name, value in tokens.items()}
        own_positions = [name for name in last.other_names if name in given]
        if own_positions:
            raise ValueError(
                f"`inputs` should leave out {own_positions}: candidates stand right behind each "
                f"row's tokens, which are counted from 0. Received: inputs with {own_positions}"
            )
        check_right_padding(given[mask_name], mask_name)
        for token_input in self.splice.token_inputs[:-1]:
            trim(given, token_input)
        lengths = (given.pop(mask_name) != 0).sum(axis=1)
        given[ids_name] = given[ids_name][:, : lengths.max()]
        if "task_ids" in given:
            given["task_ids"] = np.broadcast_to(given["task_ids"], lengths.shape)
        return given, lengths

    def _check_positions(self, lengths: np.ndarray, candidates: Candidates) -> None:
        limit, longest = self._positions_left(), int(lengths.max())
        if limit is not None and longest + candidates.longest > limit:
            raise ValueError(
                f"`inputs` and `candidates` should have at most {limit} tokens together: the "
                f"backbone has {self.splice.max_sequence_length} positions and the prompt takes "
                f"{self.splice.max_sequence_length - limit}. Received: an input of {longest} "  # type: ignore[operator]
                f"tokens and a candidate of {candidates.longest}"
            )

    def _positions_left(self) -> int | None:
        """How many positions the prompt leaves to the text that is continued."""
        limit, splice = self.splice.max_sequence_length, self.splice
        has_prompt = len(splice.token_inputs) <= splice.num_transformer_submodules
        return None if limit is None else limit - splice.num_virtual_tokens * has_prompt

    def _log_likelihoods(
        self, given: dict[str, Any], lengths: np.ndarray, candidates: Candidates, use_cache: bool
    ) -> np.ndarray:
        """The sums (B, C)."""
        rows, ids_name = len(lengths), self._generated_names()[0]
        read, by_cache, by_splice = self._score_functions()
        # One width for texts of about one length; later tokens cannot reach back.
        width = up_to_step(lengths.max()) + candidates.longest
        width = min(width, self._positions_left() or width)
        ids = given[ids_name]
        given[ids_name] = np.pad(ids.astype("int32"), [(0, 0), (0, width - ids.shape[1])])
        if use_cache and self.keeps_cache:
            given |= self.prompts_of_batch(given.pop("task_ids", None), rows)
            kept = read(given)
        else:
            kept = {name: value for name, value in given.items() if name != ids_name}
        scores = np.zeros((rows, len(candidates)), "float32")
        for row_of, which in pairs(lengths, len(candidates)):
            tokens, sizes = (padded(x) for x in candidates.of_pairs(row_of, which))
            start = lengths[row_of[0]]
            x = {"kept": kept, "tokens": tokens, "sizes": sizes}
            x["start"] = np.asarray(start, "int32")
            if use_cache and self.keeps_keys:
                # The rows of this chunk, and which of them each pair has.
                own, of = np.unique(padded(row_of), return_inverse=True)
                x |= {"rows": padded(own).astype("int32"), "of": of.astype("int32")}
                x["last"] = given[ids_name][x["rows"], start - 1 : start]
                found = by_cache(x)
            else:
                x["rows"] = padded(row_of).astype("int32")
                x["ids"] = given[ids_name][x["rows"]]
                x["ids"][:, start : start + candidates.longest] = tokens
                found = by_splice(x)
            scores[row_of, which] = ops.convert_to_numpy(found)[: len(row_of)]
        return scores

    def _read_once(self, inputs: dict[str, Any]) -> Any:
        """What is kept of prompts and inputs, with room for candidates."""
        ids_name, _ = self._generated_names()
        others = {name: value for name, value in inputs.items() if name != ids_name}
        return self._cache_of_text(ops.cast(inputs[ids_name], "int32"), others)[1]

    def _score_by_cache(self, x: dict[str, Any]) -> Any:
        """The sums (P,) of pairs whose rows are equally long.

        The row's last token is run again, once for all of the row's candidates: their first
        tokens' probabilities follow from it. All but the last of a candidate's tokens come behind,
        in the place of what padding the row has: the causal mask hides what is left of that.
        """
        tokens = ops.cast(x["tokens"], "int32")
        cache = _taken(x["kept"], x["rows"])
        logits, _, cache = self.step_of_cache(x["last"], cache, x["start"] - 1)
        found = _log_softmax(ops.take(logits, x["of"], axis=0))
        found = _chosen(found, tokens[:, :1])
        if tokens.shape[1] > 1:
            cache = _taken(cache, x["of"])
            logits, _, _ = self.step_of_cache(tokens[:, :-1], cache, x["start"])
            more = _chosen(_log_softmax(logits), tokens[:, 1:])
            found = ops.concatenate([found, more], axis=1)
        return _sum_of_first(found, x["sizes"])

    def _score_by_splice(self, x: dict[str, Any]) -> Any:
        """The same, by running each pair as a whole."""
        ids_name, mask_name = self._generated_names()
        ids, tokens = ops.cast(x["ids"], "int32"), ops.cast(x["tokens"], "int32")
        given = _taken(x["kept"], x["rows"])
        outputs, states = self._outputs_and_states(
            {**given, ids_name: ids, mask_name: ops.ones_like(ids)}
        )
        start = (0, x["start"] - 1, 0)
        here = ops.slice(states, start, (states.shape[0], tokens.shape[1], states.shape[2]))
        flat = [here if o is states else o for o in keras.tree.flatten(outputs)]
        logits = self.to_logits(flat, training=False)
        return _sum_of_first(_chosen(_log_softmax(logits), tokens), x["sizes"])

    def _score_functions(self) -> Any:
        """The three functions above, compiled."""
        if self.score_functions is None:
            steps = (self._read_once, self._score_by_cache, self._score_by_splice)
            self.score_functions = tuple(compiled(self, step) for step in steps)
        return self.score_functions


def _taken(kept: Any, rows: Any) -> Any:
    """The given rows of every tensor."""
    return keras.tree.map_structure(lambda t: ops.take(t, rows, axis=0), kept)


def _log_softmax(logits: Any) -> Any:
    return ops.log_softmax(ops.cast(logits, "float32"), axis=-1)


def _chosen(log_p: Any, tokens: Any) -> Any:
    """Each token's own of (P, n, V): (P, n)."""
    return ops.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]


def _sum_of_first(found: Any, sizes: Any) -> Any:
    """The sum of each row's first entries."""
    is_token = ops.arange(found.shape[1])[None] < ops.cast(sizes, "int32")[:, None]
    return ops.sum(ops.where(is_token, found, ops.zeros_like(found)), axis=1)
