"""What a prompt's tokens would read as."""

from __future__ import annotations

import functools

import numpy as np
from keras import ops

from keras_mpt.analysis.checks import check_model, task_id
from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_size
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.prompts.cosines import top_cosines
from keras_mpt.types import Tokenizer


def nearest_tokens(
    model: PromptTunedModel,
    task: str | int | None = None,
    k: int = 5,
    tokenizer: Tokenizer | None = None,
) -> list[list[tuple[str | int, float]]]:
    """The k entries of the vocabulary that each token of a prompt is most like, by cosine.

    A trained prompt need not be near any word: cosines say how much of a likeness there is.

    Args:
        model: a prompt-tuned model.
        task: string or int. Whose prompt: a task's name or id. `None` is P: the prompt that all
            tasks share, or the only one of a model without tasks. Defaults to `None`.
        k: int. How many entries per prompt token. Defaults to `5`.
        tokenizer: a keras-hub tokenizer, for tokens as strings. `None` takes the one of the model's
            preprocessor. Defaults to `None`.

    Returns:
        A list with an entry per prompt token (M·L, an encoder's before its decoder's), each a list
        of k pairs of token and similarity, highest first. A token is a string; its id where there
        is no tokenizer, or it has no such token. Entries whose embedding is zero come last, with
        NaN.

    Raises:
        ValueError: a task that the model does not have, or a `k` larger than the vocabulary.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.PromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, prompt_tuning_init="SAMPLE_VOCAB"
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=2)
        for (first, similarity), *others in keras_mpt.analysis.nearest_tokens(model):
            assert 0.999 < similarity < 1.001
        ```

    Source: Lester et al. 2021 (arXiv 2104.08691), section 7.
    """
    check_model(model)
    k = check_size("k", k)
    size = model.splice.vocabulary_size
    if k > size:
        raise ValueError(f"`k` should be at most the vocabulary's {size} tokens. Received: k={k}")
    if tokenizer is None:
        tokenizer = getattr(model.preprocessor, "tokenizer", None)
    elif not hasattr(tokenizer, "id_to_token") or not hasattr(tokenizer, "vocabulary_size"):
        raise ValueError(
            "`tokenizer` should be a keras-hub tokenizer or None. Received: a "
            f"{type(tokenizer).__name__}"
        )

    def embed_tokens(i: int, ids: np.ndarray) -> np.ndarray:
        embedded = model.splice.embed_tokens(ops.convert_to_tensor(ids, "int32"), i)
        return to_numpy(ops.cast(embedded, "float32"))

    # An encoder and a decoder may have tables of their own.
    parts = np.split(_prompt(model, task), model.config.submodules)
    found = [
        top_cosines(part, functools.partial(embed_tokens, i), size, k)
        for i, part in enumerate(parts)
    ]
    return [
        [(_token(int(i), tokenizer), float(s)) for i, s in zip(*row, strict=True)]
        for ids, similarities in found
        for row in zip(ids, similarities, strict=True)
    ]


def _prompt(model: PromptTunedModel, task: str | int | None) -> np.ndarray:
    """The prompt, (M·L, d)."""
    state = model.prompt.get_peft_state_dict()
    prompt: np.ndarray = state["prompt_embeddings"].astype("float64")
    if task is None:
        return prompt
    task = task_id(model, task)
    return prompt * (state["prefix_task_cols"][task] @ state["prefix_task_rows"][task])


def _token(token_id: int, tokenizer: Tokenizer | None) -> str | int:
    """The token; a table of embeddings may be longer than the vocabulary."""
    if tokenizer is None or token_id >= tokenizer.vocabulary_size():
        return token_id
    return str(tokenizer.id_to_token(token_id))
