"""What `generate` is given and gives: text to tokens, room for new ones, and the new ones alone."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from keras_mpt.arrays import is_array, to_numpy, up_to_step
from keras_mpt.checks import check_utf8, is_integer, is_padded_on_the_right, received
from keras_mpt.data.columns import as_list
from keras_mpt.data.texts import PROMPTS, TEXT_NAMES
from keras_mpt.fitting.cut_text import warn_of_cut_text
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.splicing.cut import TokenInput
from keras_mpt.splicing.splice import TEXT_LENGTHS, Splice
from keras_mpt.types import Preprocessor, TaskIds, Tensor


@dataclasses.dataclass(frozen=True)
class Text:
    """Strings to continue.

    Attributes:
        inputs: list of strings, or a dict of such lists, as keras-hub's preprocessors take them.
        is_one: whether one string was given rather than a list.
        are_prompts: whether they were given as prompts. Defaults to `False`.
    """

    inputs: Any
    is_one: bool
    are_prompts: bool = False


def as_text(inputs: Any, preprocessor: Preprocessor | None, has_encoder: bool) -> Text | None:
    """The strings in `generate`'s inputs, or `None` where they are a dict of tokens.

    Raises:
        ValueError: no text, other things than strings, lists of different lengths, an encoder's
            text that is missing, or text for a model without a preprocessor.
    """
    if isinstance(inputs, dict) and not any(
        name.endswith("text") or name in TEXT_NAMES for name in inputs
    ):
        return None
    if preprocessor is None:
        raise ValueError(
            "`inputs` should be a dict of the backbone's inputs where the model has no "
            f"preprocessor. Received: inputs of type {type(inputs).__name__}"
        )
    names = ("encoder_text", "decoder_text") if has_encoder else ()
    texts = dict(inputs) if isinstance(inputs, dict) else {"text": inputs}
    are_prompts = list(texts) == [PROMPTS]
    if are_prompts:
        texts = {"text": texts[PROMPTS]}
    lists = {name: [t] if isinstance(t, str) else as_list(t) or [] for name, t in texts.items()}
    is_text = all(t and all(isinstance(s, str) for s in t) for t in lists.values())
    if (
        not is_text
        or len({len(t) for t in lists.values()}) != 1
        or set(lists) not in ({"text"}, set(names))
    ):
        kinds = f", or a dict of {list(names)}" if names else ""
        raise ValueError(
            f"`inputs` should be a string or a list of strings{kinds}, with as many of each. "
            f"Received: inputs={received(inputs)}"
        )
    for text in itertools.chain.from_iterable(lists.values()):
        check_utf8("inputs", text)
    is_one = all(isinstance(t, str) for t in texts.values())
    return Text(lists.get("text", lists), is_one, are_prompts)


def without_task_ids(inputs: Any, task_ids: TaskIds | None) -> tuple[Any, TaskIds | None]:
    """The inputs alone, and the task ids, given beside them or among them."""
    if not isinstance(inputs, dict):
        return inputs, task_ids
    inputs = dict(inputs)
    own_ids = inputs.pop("task_ids", None)
    if own_ids is not None and task_ids is not None:
        raise ValueError(
            "`task_ids` should be given once, in `inputs` or beside it. Received: both "
            f"{own_ids!r} and {task_ids!r}"
        )
    return inputs, own_ids if task_ids is None else task_ids


def checked_stops(
    stop_token_ids: Any, preprocessor: Preprocessor | None, vocabulary_size: int
) -> tuple[int, ...] | None:
    """The tokens that end a row; `None` where none does.

    Args:
        stop_token_ids: what `generate` was given.
        preprocessor: keras-hub preprocessor whose tokenizer "auto" asks, or `None`.
        vocabulary_size: int. V.

    Raises:
        ValueError: anything but "auto", `None`, a token id or a sequence of them; ids outside
            [0, V), which would end nothing; or "auto" without a preprocessor.
    """
    if isinstance(stop_token_ids, str) and stop_token_ids == "auto":
        if preprocessor is None:
            raise ValueError(
                "`stop_token_ids` should be None or a list of token ids where the model has no "
                "preprocessor to take them from. Received: stop_token_ids='auto'"
            )
        tokenizer = preprocessor.tokenizer
        ends = [tokenizer.end_token_id, getattr(tokenizer, "end_token2_id", None)]
        return tuple(int(i) for i in ends if i is not None) or None
    given = [] if stop_token_ids is None else stop_token_ids
    if is_array(given):
        given = to_numpy(given).tolist()
    stops = list(given) if isinstance(given, (list, tuple)) else [given]
    if not all(is_integer(stop, 0, vocabulary_size) for stop in stops):
        raise ValueError(
            "`stop_token_ids` should be 'auto', None, a token id or a list of them, in [0, "
            f"{vocabulary_size}). Received: stop_token_ids={stop_token_ids!r}"
        )
    return tuple(int(stop) for stop in stops) or None


def room(splice: Splice) -> int | None:
    """How many tokens the backbone has positions for beside the prompt; `None` for any number.

    Args:
        splice: where the prompt stands.
    """
    limit = splice.max_sequence_length
    taken = splice.num_virtual_tokens * splice.states_have_prompt
    return None if limit is None else int(limit - taken)


def check_positions(max_length: int, splice: Splice) -> None:
    """Refuses a length that the backbone has no positions for, before room is made for it."""
    limit, left = splice.max_sequence_length, room(splice)
    if limit is not None and left is not None and max_length > left:
        raise ValueError(
            f"`max_length` should be at most {left}: the backbone has {limit} positions "
            f"and the prompt takes {limit - left}. Received: max_length={max_length}"
        )


def tokenized(
    text: Text, model_inputs: ModelInputs, max_length: int | None
) -> dict[str, np.ndarray]:
    """The text's tokens and masks, with room up to `max_length`.

    An encoder's text that its preprocessor cuts is warned of, once.
    """
    preprocessor = model_inputs.preprocessor
    assert preprocessor is not None
    made = preprocessor.generate_preprocess(text.inputs, sequence_length=max_length)
    tokens = {k: to_numpy(v).astype("int32") for k, v in made.items()}
    for token_input in model_inputs.splice.token_inputs[:-1]:
        is_full = (tokens[str(token_input.mask_name)] != 0).all(axis=1)
        if is_full.any():  # Rows without padding.
            given = text.inputs["encoder_text"] if isinstance(text.inputs, dict) else text.inputs
            rows = [given[row] for row in np.flatnonzero(is_full)]
            warn_of_cut_text(model_inputs, {"encoder_text": rows, "decoder_text": [""]})
    return tokens


def whole_tokens(text: Text, model_inputs: ModelInputs, why: str) -> dict[str, np.ndarray]:
    """The text's tokens and masks, no wider than the longest row.

    Args:
        text: the text.
        model_inputs: the model's inputs.
        why: string. What the whole text is for.

    Raises:
        ValueError: a text of more tokens than the preprocessor gives.
    """
    fits: int = model_inputs.preprocessor.sequence_length  # type: ignore[union-attr]
    continued = model_inputs.splice.token_inputs[-1]
    # One more than fits: the preprocessor cuts longer text off without a word.
    tokens = tokenized(text, model_inputs, fits + 1)
    longest = int(tokens[str(continued.mask_name)].sum(axis=1).max())
    if longest > fits:
        raise ValueError(
            f"`inputs` should be texts of at most {fits} tokens "
            f"(`preprocessor.sequence_length` sets it): {why}. "
            "Received: a longer one"
        )
    for name in (continued.name, str(continued.mask_name)):
        tokens[name] = tokens[name][:, :longest]
    return tokens


def check_room(mask: np.ndarray, mask_name: str, max_length: int | None = None) -> None:
    """Refuses rows that generation would continue in the wrong place, or not at all."""
    mask = mask != 0
    if max_length is not None and max_length != mask.shape[1]:
        raise ValueError(
            "`max_length` should be left out where the inputs are tokens: their own length counts. "
            f"Received: max_length={max_length} with {mask_name} of shape {mask.shape}"
        )
    check_right_padding(mask, mask_name)
    if mask[:, -1].any():
        raise ValueError(
            f"`max_length` (without a preprocessor: the length of the inputs) should leave room "
            f"for new tokens. Received: {int(mask[:, -1].sum())} rows that fill all "
            f"{mask.shape[1]} positions"
        )


def check_right_padding(mask: np.ndarray, mask_name: str) -> None:
    """Refuses rows that have their tokens elsewhere than in front, or none."""
    mask = mask != 0
    if not is_padded_on_the_right(mask):
        raise ValueError(
            f"`{mask_name}` should be 1 at each row's tokens, then 0: rows are padded on the right "
            f"and have at least one token. Received: {mask_name}={mask.astype(int).tolist()}"
        )


def without_text_lengths(x: dict[str, Any], lengths: np.ndarray) -> dict[str, Any]:
    """Inputs of which the whole text is continued, so that prompts stand at its end.

    Args:
        x: dict of arrays.
        lengths: int array (B,). How many tokens each row has.

    Raises:
        ValueError: rows that say something else.
    """
    x = dict(x)
    given = x.pop(TEXT_LENGTHS, lengths)
    if not np.array_equal(given, lengths):
        raise ValueError(
            f"`{TEXT_LENGTHS}` should be left out, or be the tokens of each row, "
            f"{lengths.tolist()}: what follows the prompt is what is asked for. Received: "
            f"{TEXT_LENGTHS}={given.tolist()}"
        )
    return x


def check_rows_are_right(is_right: np.ndarray) -> None:
    """Refuses to answer from logits that are no numbers.

    Args:
        is_right: array (B,), false where a row has such logits.
    """
    wrong = np.flatnonzero(np.logical_not(is_right))
    if wrong.size:
        raise ValueError(
            "The model's logits should be finite for it to answer, so its prompts and its backbone "
            "should hold no NaN, as they may after a training that diverged. Received: NaN or "
            f"infinity in {wrong.size} of {len(is_right)} rows, the first of them row {wrong[0]}"
        )


def trim(x: dict[str, Tensor], token_input: TokenInput) -> None:
    """Cuts an encoder's inputs, in place, to the longest row: it runs once for each new token.

    Args:
        x: dict of arrays (B, S).
        token_input: the `TokenInput` that is meant.
    """
    if token_input.mask_name is None:
        return
    mask = x[token_input.mask_name] != 0
    longest = int((mask * np.arange(1, mask.shape[1] + 1)).max(initial=1))
    width = up_to_step(longest)
    for name in (token_input.name, token_input.mask_name, *token_input.other_names):
        if name in x:
            x[name] = x[name][:, :width]


def without_input(
    made: dict[str, np.ndarray], given: np.ndarray, ids_name: str, mask_name: str
) -> dict[str, np.ndarray]:
    """The new tokens of each row at its front; padding (the mask's 0) after them."""
    # A stable sort by "was given" brings the new tokens forward in their order.
    order = np.argsort(given, axis=1, kind="stable")
    is_new = (made[mask_name] != 0) & ~given
    return {
        ids_name: np.take_along_axis(made[ids_name], order, axis=1),
        mask_name: np.take_along_axis(is_new, order, axis=1),
    }
